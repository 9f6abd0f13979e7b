//! The tests that are commands, in one component: which of them it is, it knows by the name of its program.
mod cases;
mod files;
mod messages;
mod places;
mod streams;

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let program = wasip3::cli::environment::get_arguments().swap_remove(0);
        cases::run(&checks::case(&program)).await
    }
}
