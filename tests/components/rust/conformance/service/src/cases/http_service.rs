//! What a server answers reaches who asks: status, headers and body, or no body. A GET has none, and no trailers.
use checks::{check, same};
use wasip3::http::types::{Method, Request, Response};

use crate::messages::{answer, read};

pub async fn handle(request: Request) -> Response {
    let (method, path) = (request.get_method(), request.get_path_with_query());
    let (body, trailers) = read(request).await;
    same!(body.len(), 0);
    check!(trailers.is_none());
    match (method, path.as_deref()) {
        (Method::Get, Some("/")) => answer(200, &[("content-type", "text/plain")], Some(b"good day\n")),
        (Method::Get, _) => answer(404, &[], None),
        _ => answer(405, &[], None),
    }
}
