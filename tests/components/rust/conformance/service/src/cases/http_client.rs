//! A body that is sent arrives, and what is answered comes back whole, without trailers.
use checks::{check, same};

use crate::messages::post;

pub async fn run() {
    let answer = post("/body", b"there and back").await;
    same!(answer.body, "there and back");
    check!(answer.trailers.is_none());
}
