//! What stdin has comes in one piece, and comes out of stdout and stderr as it was.
use checks::{ok, same};
use wasip3::cli::{stderr, stdin, stdout};
use wasip3::wit_bindgen::StreamResult;

use crate::streams::put;

const LENGTH: usize = "there and back".len();

pub async fn run() {
    let (mut input, done) = stdin::read_via_stream();
    let (result, text) = input.read(Vec::with_capacity(LENGTH)).await;
    same!(result, StreamResult::Complete(LENGTH));
    drop(input);
    ok!(done.await);
    put!(&text, stdout::write_via_stream);
    put!(&text, stderr::write_via_stream);
}
