//! A response has status 200, and any other from 100 to 599 that it is given. Its headers are those that it was
//! made of, whatever their values mean, and do not change.
use checks::{gives, ok, same};
use wasip3::http::types::{Fields, Response};

use crate::messages::{check_frozen, no_trailers};

pub async fn run() {
    let headers = Fields::new();
    ok!(headers.append("content-type", b"?? no type"));
    let before = headers.clone();
    let (response, _sent) = Response::new(headers, None, no_trailers());
    same!(response.get_status_code(), 200);

    let ranges = [100..=101, 200..=206, 300..=308, 400..=417, 421..=422, 426..=426, 500..=505];
    for status in ranges.into_iter().flatten() {
        ok!(response.set_status_code(status));
        same!(response.get_status_code(), status);
    }
    for none in [0, 42, 69, 600, 1000, u16::MAX] {
        gives!(response.set_status_code(none), Err(()));
    }
    check_frozen(&response.get_headers(), &before);
}
