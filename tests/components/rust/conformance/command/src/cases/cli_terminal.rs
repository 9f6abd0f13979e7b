//! Where stdio is no terminal, there is none.
use checks::gives;
use wasip3::cli::{terminal_stderr, terminal_stdin, terminal_stdout};

pub async fn run() {
    gives!(terminal_stdin::get_terminal_stdin(), None);
    gives!(terminal_stdout::get_terminal_stdout(), None);
    gives!(terminal_stderr::get_terminal_stderr(), None);
}
