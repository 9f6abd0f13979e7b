//! Of a request that could not be sent, nobody is told that it was.
use checks::check;
use wasip3::http::client;
use wasip3::http::types::Method;

use crate::messages::request;

pub async fn run() {
    let (request, sent) = request(&Method::Get, "nobody.invalid:80", Some("/"), &[]);
    check!(client::send(request).await.is_err());
    check!(sent.await.is_err());
}
