//! An answer that comes in chunks is one body, with the trailers that it has, or none.
use checks::{check, same};

use crate::messages::get;

pub async fn run() {
    let answer = get("/chunks").await;
    same!((answer.status, &answer.body), (200, "one, two, three"));
    check!(answer.trailers.is_none());

    let answer = get("/trailers").await;
    same!((answer.status, &answer.body), (200, "one, two"));
    same!(answer.trailer("x-sum"), ["1020"]);
    same!(answer.trailer("x-count"), ["2"]);
}
