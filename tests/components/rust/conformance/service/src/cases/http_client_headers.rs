//! Headers are sent, all values of each in order, and the authority as the host; none is sent that was not set.
use checks::same;
use wasip3::http::types::Method;

use crate::messages::{ask, server};

pub async fn run() {
    let headers = [("x-one", "a"), ("x-two", "b"), ("x-two", "c")];
    let answer = ask(Method::Get, Some("/headers"), &headers).await;
    same!((answer.status, answer.body.len()), (200, 0));
    same!(answer.header("head-x-one"), ["a"]);
    same!(answer.header("head-x-two").join(", "), "b, c"); // on one line, or on two
    same!(answer.header("head-host"), [server()]);
    same!(answer.header("head-x-three").len(), 0);
    same!(answer.header("asked-method"), ["GET"]);
    same!(answer.header("asked-path"), ["/headers"]);
}
