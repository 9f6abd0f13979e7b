//! A request that has no path asks for "/".
use checks::same;
use wasip3::http::types::Method;

use crate::messages::ask;

pub async fn run() {
    let answer = ask(Method::Get, None, &[]).await;
    same!((answer.status, answer.body), (200, "root"));
}
