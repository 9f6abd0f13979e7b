//! A request fails where nobody listens, and where there is nobody of that name; to the one who is there, it does
//! not.
use checks::{check, ok, same};
use wasip3::http::client;
use wasip3::http::types::Method;

use crate::messages::{place, request, server};

pub async fn run() {
    let send = |authority: &str| client::send(request(&Method::Get, authority, Some("/"), &[]).0);
    same!(ok!(send(&server()).await).get_status_code(), 200);
    check!(send(&place("NOBODY")).await.is_err());
    check!(send("nobody.invalid:80").await.is_err());
}
