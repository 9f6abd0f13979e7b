//! What is sent to a server reaches it, and comes back: a body, an empty one, too, and the value of a header.
use wasip3::http::types::{Method, Request, Response};

use crate::messages::{answer, read};

pub async fn handle(request: Request) -> Response {
    let (method, path, headers) = (request.get_method(), request.get_path_with_query(), request.get_headers());
    let (body, _trailers) = read(request).await;
    match (method, path.as_deref()) {
        (Method::Post, Some("/body")) => answer(200, &[("content-type", "application/octet-stream")], Some(&body)),
        (Method::Get, Some("/header")) => {
            let found = headers.get("x-sent").concat();
            answer(200, &[("x-returned", &String::from_utf8_lossy(&found))], None)
        }
        _ => answer(404, &[], None),
    }
}
