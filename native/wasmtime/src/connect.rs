//! Limits of connections to others: how long it takes to connect, of the request that asks for it, and how many are kept.

use std::error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

type Failure = Box<dyn error::Error + Send + Sync>;

tokio::task_local! {
    pub static LIMIT: Duration;
}

#[derive(Clone)]
pub struct Limited<C> {
    connector: C,
    /// More than these, used or not, and the next is closed after its request.
    most: usize,
    open: Arc<AtomicUsize>,
}

impl<C> Limited<C> {
    pub fn new(connector: C, most: usize) -> Self {
        Self { connector, most, open: Arc::default() }
    }
}

impl<C> Service<Uri> for Limited<C>
where
    C: Service<Uri>,
    C::Response: Send,
    C::Error: Into<Failure>,
    C::Future: Send + 'static,
{
    type Response = Counted<C::Response>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = LIMIT.try_with(|limit| *limit).ok();
        let (most, open, connecting) = (self.most, self.open.clone(), self.connector.call(uri));
        Box::pin(async move {
            let connected = match limit {
                Some(limit) => tokio::time::timeout(limit, connecting).await.map_err(|_| Failure::from(TooLate))?,
                None => connecting.await,
            };
            Ok(Counted::new(connected.map_err(Into::into)?, most, open))
        })
    }
}

/// A connection, until it is closed.
pub struct Counted<S> {
    stream: S,
    kept: bool,
    open: Arc<AtomicUsize>,
}

impl<S> Counted<S> {
    fn new(stream: S, most: usize, open: Arc<AtomicUsize>) -> Self {
        let kept = open.fetch_add(1, Ordering::AcqRel) < most;
        Self { stream, kept, open }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<S: Connection> Connection for Counted<S> {
    fn connected(&self) -> Connected {
        let connected = self.stream.connected();
        if !self.kept {
            connected.poison();
        }
        connected
    }
}

impl<S: Read + Unpin> Read for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Write + Unpin> Write for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}

#[derive(Debug)]
pub struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it took too long to connect")
    }
}

impl error::Error for TooLate {}
