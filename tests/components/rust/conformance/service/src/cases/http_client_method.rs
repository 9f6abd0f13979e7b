//! A request has the method that it was given.
use checks::same;
use wasip3::http::types::Method;

use crate::messages::{ask, get};

pub async fn run() {
    let methods = [
        (Method::Get, "GET"),
        (Method::Post, "POST"),
        (Method::Put, "PUT"),
        (Method::Delete, "DELETE"),
        (Method::Patch, "PATCH"),
        (Method::Options, "OPTIONS"),
        (Method::Head, ""), // to which there is no body
    ];
    for (method, name) in methods {
        let answer = ask(method, Some("/method"), &[]).await;
        same!((answer.status, answer.body), (200, name));
    }
    same!(get("/nothing").await.status, 404);
}
