//! An answer has the status and the body that it was given, whatever the status means.
use checks::{check, same};

use crate::messages::get;

pub async fn run() {
    let known = [("/200", 200, ""), ("/201", 201, "made"), ("/418", 418, ""), ("/500", 500, "down"), ("/404", 404, "")];
    for (path, status, body) in known {
        let answer = get(path).await;
        same!((answer.status, &answer.body), (status, body));
        check!(answer.trailers.is_none());
    }
}
