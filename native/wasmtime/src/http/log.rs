//! The access log: a line per request on stdout, as uvicorn writes it.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode, Uri, Version};

/// What is told of a request, once it has an answer.
pub struct Entry {
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    version: Version,
}

impl Entry {
    pub fn of<B>(peer: SocketAddr, request: &http::Request<B>) -> Self {
        Self { peer, method: request.method().clone(), uri: request.uri().clone(), version: request.version() }
    }

    pub fn write(&self, status: StatusCode) {
        let path = self.uri.path_and_query().map_or("/", |it| it.as_str());
        let version = match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        let line = format!("{} {} - \"{} {path} HTTP/{version}\" {}\n", now(), self.peer, self.method, status.as_u16());
        unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    }
}

/// As Python's logging: ``2026-11-27 14:58:00,123``.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() as libc::time_t;
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    let parts = unsafe {
        libc::localtime_r(&seconds, parts.as_mut_ptr());
        parts.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        since.subsec_millis()
    )
}
