//! A program that says that it failed ends there, with exit code 1.
use wasip3::cli::exit::exit;

pub async fn run() {
    exit(Err(()));
}
