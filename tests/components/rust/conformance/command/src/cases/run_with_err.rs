//! A program whose main function returns an error has exit code 1.
pub async fn run() -> Result<(), ()> {
    Err(())
}
