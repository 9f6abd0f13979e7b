//! A request's trailers arrive after its body, which is chunked then, and has no length.
use checks::{check, ok, same};

use crate::messages::{post_with_trailers, Answer};

const TRAILERS: [(&str, &str); 2] = [("x-sum", "1020"), ("x-count", "2")];

async fn send(path: &str, data: &[u8]) -> Answer {
    let answer = Answer::of(ok!(post_with_trailers(path, data, &TRAILERS, Ok(())).await)).await;
    same!(answer.status, 200);
    check!(answer.trailers.is_none());
    answer
}

pub async fn run() {
    let answer = send("/headers", b"text").await;
    same!(answer.header("tail-x-sum"), ["1020"]);
    same!(answer.header("tail-x-count"), ["2"]);
    same!(answer.header("tail-x-other").len(), 0);
    same!(answer.header("head-transfer-encoding"), ["chunked"]);
    same!(answer.header("head-content-length").len(), 0);
    same!(answer.header("asked-method"), ["POST"]);

    same!(send("/body", b"in chunks").await.body, "in chunks");
}
