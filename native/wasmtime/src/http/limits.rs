//! What a client may ask of a connection; docs/http.md says it to users.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;

/// Of HTTP/2: bytes of a request's headers, or trailers, all together.
const HEADERS: usize = 64 * 1024;
/// Of HTTP/1.1: bytes that are read before they are used, headers among them, of which there may be 100; and bytes of an
/// answer that a client has not taken yet.
const BUFFER: usize = 2 * HEADERS;
/// Of HTTP/2: streams that a client has reset before the server has begun with them. One more, and the connection ends.
const RESET: usize = 20;
/// Of HTTP/2: streams that the server has reset for a client's errors, likewise.
const ERRORS: usize = 100;
/// Of HTTP/2: bytes of bodies that nobody has read yet, of a stream and of a connection.
const UNREAD_OF_STREAM: u32 = 256 * 1024;
const UNREAD: u32 = 1024 * 1024;
/// Of HTTP/2: bytes of an answer that a client has not taken yet, of a stream.
const UNSENT: usize = 64 * 1024;
/// At the app's end: for what a client has sent by then to be read.
pub const SENT: Duration = Duration::from_millis(100);
/// For a client to close a connection on which it is told that there will be no more.
pub const LAST: Duration = Duration::from_secs(5);

/// :param idle: for how long a connection of HTTP/2 may say nothing; who sends no whole request is no matter of the wire's
pub fn wire(idle: Duration, concurrency: usize) -> auto::Builder<TokioExecutor> {
    let mut wire = auto::Builder::new(TokioExecutor::new());
    wire.http1().header_read_timeout(None).max_buf_size(BUFFER);
    wire.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .max_concurrent_streams(concurrency as u32)
        .max_header_list_size(HEADERS as u32)
        .max_pending_accept_reset_streams(RESET)
        .max_local_error_reset_streams(ERRORS)
        .initial_stream_window_size(UNREAD_OF_STREAM)
        .initial_connection_window_size(UNREAD)
        .max_send_buf_size(UNSENT);
    wire
}
