//! A request asks for the path and the query that it was given, as they are; for "/", if both are empty.
use checks::{check, same};

use crate::messages::get;

pub async fn run() {
    let known = [
        ("/plain", "plain"),
        ("/query?a=1", "query"),
        ("/queries?a=1&b=2", "queries"),
        ("/one%2Fname?a=b%20c", "escapes"),
        ("", "root"),
    ];
    for (path, text) in known {
        let answer = get(path).await;
        same!((answer.status, &answer.body), (200, text));
        check!(answer.trailers.is_none());
    }
    for path in ["/plain?a=1", "/query", "/queries?b=2&a=1"] {
        same!(get(path).await.status, 404);
    }
    let path = "/headers?a=1&a=2&b=";
    same!(get(path).await.header("asked-path"), [path]);
}
