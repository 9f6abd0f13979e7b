//! A connection to a process of providers: calls by number, as many at a time as there are guests that wait.

use std::collections::HashMap;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What a frame is, after its length; docs/bridge.md has them all.
mod kind {
    pub const HELLO: u8 = 0;
    pub const CALL: u8 = 1;
    pub const DROP: u8 = 2;
    pub const CANCEL: u8 = 3;
    pub const END: u8 = 4;
    pub const READ: u8 = 5;
    pub const DONE: u8 = 0;
    pub const FAILED: u8 = 1;
}

const VERSION: u32 = 2;
/// Bytes after a frame's length.
const LARGEST: usize = 16 * 1024 * 1024;
/// Of a frame, after its length: what it is, and a number.
const HEAD: usize = 5;
/// Calls under way on one connection; more wait.
const CALLS_AT_A_TIME: usize = 256;

/// Why there is no answer.
pub enum Failure {
    /// The provider's reason.
    Told(String),
    /// Nobody is there any more.
    Lost,
    TooLarge(usize),
}

/// Where connections are had, one after the other, as they end; the one that there is, is shared.
pub struct Bridge {
    /// The component's, among those that its process provides for.
    name: String,
    /// A socket of packets; each brings one end of a new connection. ``None``: there is no process.
    ask: Option<Arc<OwnedFd>>,
    made: Mutex<Option<Arc<Connection>>>,
}

impl Bridge {
    pub fn new(name: &str, ask: Option<Arc<OwnedFd>>) -> Self {
        Self { name: name.into(), ask, made: Mutex::default() }
    }

    /// The connection; another if it was lost. It lives in the runtime that this is called in.
    pub fn connection(&self) -> io::Result<Arc<Connection>> {
        let mut made = self.made.lock().expect("nobody panics with it");
        if let Some(connection) = made.as_ref().filter(|it| !it.is_lost()) {
            return Ok(connection.clone());
        }
        let ask = self.ask.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (ours, theirs) = StdStream::pair()?;
        send(ask, &theirs)?;
        ours.set_nonblocking(true)?;
        let connection = Connection::start(UnixStream::from_std(ours)?);
        connection.put(kind::HELLO, VERSION, &[self.name.as_bytes()]);
        Ok(made.insert(connection).clone())
    }
}

pub struct Connection {
    calls: Mutex<Calls>,
    slots: Semaphore,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    guests: AtomicU32,
}

#[derive(Default)]
struct Calls {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Result<Vec<u8>, Failure>>>,
    lost: bool,
}

impl Calls {
    /// Of the next one.
    fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

impl Connection {
    fn start(stream: UnixStream) -> Arc<Self> {
        let (from, to) = stream.into_split();
        let (frames, queue) = mpsc::unbounded_channel();
        let (calls, slots) = (Mutex::default(), Semaphore::new(CALLS_AT_A_TIME));
        let connection = Arc::new(Self { calls, slots, frames, guests: AtomicU32::default() });
        tokio::spawn(write(to, queue));
        tokio::spawn(read(from, connection.clone()));
        connection
    }

    fn is_lost(&self) -> bool {
        self.calls().lost
    }

    /// :returns: the answer, as MessagePack
    pub async fn call(self: &Arc<Self>, guest: u32, name: &str, arguments: &[u8]) -> Result<Vec<u8>, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::Lost)?;
        let length = (name.len() as u16).to_be_bytes();
        let parts = [&guest.to_be_bytes(), &length[..], name.as_bytes(), arguments];
        self.ask(kind::CALL, &parts).await
    }

    /// What comes next of a stream, or what a future gives, as MessagePack.
    pub async fn read(self: &Arc<Self>, guest: u32, object: u32) -> Result<Vec<u8>, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::Lost)?;
        self.ask(kind::READ, &[&guest.to_be_bytes(), &object.to_be_bytes()]).await
    }

    /// A guest has dropped a stream or a future, and waits for nothing.
    pub fn forget(&self, guest: u32, object: u32) {
        let number = self.calls().number();
        self.put(kind::DROP, number, &[&guest.to_be_bytes(), &object.to_be_bytes()]);
    }

    /// A guest has dropped a resource.
    pub async fn drop(self: &Arc<Self>, guest: u32, resource: u32) -> Result<(), Failure> {
        self.ask(kind::DROP, &[&guest.to_be_bytes(), &resource.to_be_bytes()]).await.map(|_| ())
    }

    async fn ask(self: &Arc<Self>, kind: u8, parts: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        let size = HEAD + parts.iter().map(|it| it.len()).sum::<usize>();
        if size > LARGEST {
            return Err(Failure::TooLarge(size));
        }
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut calls = self.calls();
            if calls.lost {
                return Err(Failure::Lost);
            }
            let number = calls.number();
            calls.waiting.insert(number, sender);
            number
        };
        let _under_way = UnderWay { of: self, number };
        self.put(kind, number, parts);
        answer.await.unwrap_or(Err(Failure::Lost))
    }

    fn put(&self, kind: u8, number: u32, parts: &[&[u8]]) {
        let size = HEAD + parts.iter().map(|it| it.len()).sum::<usize>();
        let mut frame = Vec::with_capacity(4 + size);
        frame.extend((size as u32).to_be_bytes());
        frame.push(kind);
        frame.extend(number.to_be_bytes());
        parts.iter().for_each(|part| frame.extend(*part));
        let _ = self.frames.send(frame); // else it is lost, which is told when it is read
    }

    fn take(&self, number: u32) -> Option<oneshot::Sender<Result<Vec<u8>, Failure>>> {
        self.calls().waiting.remove(&number)
    }

    fn lose(&self) {
        let mut calls = self.calls();
        calls.lost = true;
        calls.waiting.clear();
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().expect("nobody panics with it")
    }
}

/// A call whose caller goes away has no answer any more.
struct UnderWay<'a> {
    of: &'a Connection,
    number: u32,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.of.take(self.number).is_some() {
            self.of.put(kind::CANCEL, self.number, &[]);
        }
    }
}

/// One guest on it, whose resources there end with it.
pub struct Guest {
    pub connection: Arc<Connection>,
    pub number: u32,
}

impl Guest {
    pub fn new(connection: Arc<Connection>) -> Self {
        let number = connection.guests.fetch_add(1, Relaxed);
        Self { connection, number }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connection.put(kind::END, self.number, &[]);
    }
}

async fn write(mut to: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(mut frame) = queue.recv().await {
        while frame.len() < TOGETHER
            && let Ok(next) = queue.try_recv()
        {
            frame.extend(next);
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Bytes of frames that are written at once.
const TOGETHER: usize = 64 * 1024;

async fn read(from: OwnedReadHalf, connection: Arc<Connection>) {
    let mut from = BufReader::with_capacity(TOGETHER, from);
    while let Ok((kind, number, payload)) = frame(&mut from).await {
        let Some(waiting) = connection.take(number) else { continue }; // it was cancelled
        let _ = waiting.send(match kind {
            kind::DONE => Ok(payload),
            kind::FAILED => Err(Failure::Told(String::from_utf8_lossy(&payload).into_owned())),
            _ => break,
        });
    }
    connection.lose();
}

async fn frame(from: &mut BufReader<OwnedReadHalf>) -> io::Result<(u8, u32, Vec<u8>)> {
    let size = from.read_u32().await? as usize;
    if !(HEAD..=LARGEST).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (kind, number) = (from.read_u8().await?, from.read_u32().await?);
    let mut payload = vec![0; size - HEAD];
    from.read_exact(&mut payload).await?;
    Ok((kind, number, payload))
}

/// Send a packet with a descriptor.
fn send(to: &OwnedFd, stream: &StdStream) -> io::Result<()> {
    let fd = stream.as_raw_fd();
    let mut byte = 0u8;
    let mut data = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0u64; 4]; // as aligned as a header of it
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(to.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
