//! A server knows the scheme and the authority that it is asked by.
use checks::some;
use wasip3::http::types::{Request, Response};

use crate::messages::{answer, read};

pub async fn handle(request: Request) -> Response {
    some!(request.get_scheme());
    some!(request.get_authority());
    read(request).await;
    answer(200, &[], None)
}
