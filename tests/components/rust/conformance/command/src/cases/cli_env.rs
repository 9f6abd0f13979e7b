//! A program has the variables and the arguments that it was given, after its own name, and no others. It has no
//! working directory.
use checks::same;
use wasip3::cli::environment::{get_arguments, get_environment, get_initial_cwd};

pub async fn run() {
    let mut variables = get_environment();
    variables.sort();
    same!(variables, [("answer", "42"), ("greeting", "hello")]);
    same!(&get_arguments()[1..], ["first", "second", "42"]);
    same!(get_initial_cwd(), None::<String>);
}
