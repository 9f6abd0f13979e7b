//! Answers that no component gives: those of a manifest (``static_response``), and our own.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;

use crate::http::GuestBody;

/// Checked by Python.
#[derive(Deserialize)]
pub struct Fixed {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Fixed {
    pub fn answer(&self) -> Response<GuestBody> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
                headers.append(name, value);
            }
        }
        answer(StatusCode::from_u16(self.status).unwrap_or_default(), headers, &self.body)
    }
}

pub fn plain(status: StatusCode, body: &str, kind: &'static str) -> Response<GuestBody> {
    answer(status, HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]), body)
}

fn answer(status: StatusCode, mut headers: HeaderMap, body: &str) -> Response<GuestBody> {
    let body = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Bytes::new(), // nor a length
        _ => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            Bytes::copy_from_slice(body.as_bytes())
        }
    };
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(GuestBody::whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
