//! Components that serve HTTP: ``wasi:http/incoming-handler@0.2`` and ``wasi:http/handler@0.3``. What holds for both, and
//! for shimd's host in Python, is in docs/http.md.

mod activity;
mod ahead;
mod bell;
mod body;
mod component;
mod limits;
mod log;
mod newer;
mod older;
mod server;
mod signals;
mod tally;
mod upload;

use std::time::Duration;

use wasmtime_wasi::I32Exit;

use crate::abi::tell;

pub use body::GuestBody;
pub use component::Component;
pub use server::{App, Server, Settings, run};
pub use signals::{ENDING, hold};

/// Why there is no answer, and the status that the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    Failed,
    TooLate,
    /// It was no request of which it is clear to whom.
    Refused,
}

impl NoAnswer {
    pub fn status(self) -> ::http::StatusCode {
        match self {
            Self::Failed => ::http::StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLate => ::http::StatusCode::GATEWAY_TIMEOUT,
            Self::Refused => ::http::StatusCode::BAD_REQUEST,
        }
    }
}

/// Tell that a guest has not answered in time.
///
/// :param name: what stands before it
fn too_late(name: &str, timeout: Option<Duration>) -> NoAnswer {
    tell(&format!("shimd: {name}no answer within {} s", timeout.unwrap_or_default().as_secs()));
    NoAnswer::TooLate
}

/// Tell of a guest that has answered, and went on to compute.
fn computes(name: &str, time: Duration) {
    tell(&format!("shimd: {name}the guest computed for {} s after its answer: it is ended", time.as_secs()));
}

/// Tell why a guest failed; an exit with 0 is no failure.
fn report(name: &str, error: &wasmtime::Error) {
    match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(0)) => {}
        Some(I32Exit(code)) => tell(&format!("shimd: {name}the guest exited with {}", code & 0xff)),
        None => tell(&format!("shimd: {name}{error:?}")),
    }
}
