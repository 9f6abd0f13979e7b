//! Components that serve HTTP: ``wasi:http/incoming-handler@0.2`` and ``wasi:http/handler@0.3``. What holds for both, and
//! for shimd's host in Python, is in docs/http.md.

mod activity;
mod body;
mod limits;
mod log;
mod newer;
mod older;
mod server;
mod signals;

pub use body::Fate;
pub use server::{Server, Settings};
pub use signals::ENDING;

/// Why there is no answer, and the status that the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    Failed,
    TooLate,
}

impl NoAnswer {
    pub fn status(self) -> ::http::StatusCode {
        match self {
            Self::Failed => ::http::StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLate => ::http::StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
