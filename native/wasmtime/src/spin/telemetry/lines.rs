//! What components write to their stdout and stderr, line by line, for who is told of it, too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{self, IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::Watch;

/// Bytes of a line that are kept until its end comes; what is longer is told in parts.
const LONGEST: usize = 16 * 1024;

/// Our stdout or stderr, for one guest.
pub struct Watched {
    inner: Box<dyn StdoutStream + Sync>,
    watch: Watch,
    name: &'static str,
}

impl Watched {
    pub fn stdout(watch: Watch) -> Self {
        Self { inner: Box::new(cli::stdout()), watch, name: "stdout" }
    }

    pub fn stderr(watch: Watch) -> Self {
        Self { inner: Box::new(cli::stderr()), watch, name: "stderr" }
    }

    fn lines(&self) -> Lines {
        Lines { watch: self.watch.clone(), name: self.name, begun: Vec::new() }
    }
}

impl IsTerminal for Watched {
    fn is_terminal(&self) -> bool {
        self.inner.is_terminal()
    }
}

impl StdoutStream for Watched {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Older { inner: self.inner.p2_stream(), lines: self.lines() })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Newer { inner: Box::into_pin(self.inner.async_stream()), lines: self.lines() })
    }
}

/// One that is not ended is told when the stream ends.
struct Lines {
    watch: Watch,
    name: &'static str,
    begun: Vec<u8>,
}

impl Lines {
    fn write(&mut self, data: &[u8]) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend(part);
            if self.begun.last() == Some(&b'\n') {
                self.begun.pop();
                self.tell(self.begun.len());
            }
            while self.begun.len() >= LONGEST {
                self.tell(LONGEST);
            }
        }
    }

    fn tell(&mut self, length: usize) {
        let line: Vec<u8> = self.begun.drain(..length).collect();
        if !line.is_empty() {
            self.watch.line(self.name, String::from_utf8_lossy(&line).into_owned());
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.tell(self.begun.len());
    }
}

struct Older {
    inner: Box<dyn OutputStream>,
    lines: Lines,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Older {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

impl OutputStream for Older {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.inner.write(bytes.clone())?;
        self.lines.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }
}

struct Newer {
    inner: Pin<Box<dyn AsyncWrite + Send + Sync>>,
    lines: Lines,
}

impl AsyncWrite for Newer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.inner.as_mut().poll_write(cx, data))?;
        self.lines.write(&data[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}
