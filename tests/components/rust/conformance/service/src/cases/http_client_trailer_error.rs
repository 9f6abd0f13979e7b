//! A request whose trailers fail has no answer; where they do not, it has.
use checks::{check, ok, same};
use wasip3::http::types::ErrorCode;

use crate::messages::post_with_trailers;

const TRAILERS: [(&str, &str); 1] = [("x-sum", "1020")];

pub async fn run() {
    let answer = ok!(post_with_trailers("/body", b"half of", &TRAILERS, Ok(())).await);
    same!(answer.get_status_code(), 200);
    let broken = post_with_trailers("/body", b"half of", &TRAILERS, Err(ErrorCode::InternalError(None))).await;
    check!(broken.is_err());
}
