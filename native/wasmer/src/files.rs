//! Directories of the host as a file system of WASIX, with the kernel's own semantics.
//!
//! WASIX has one, too. It goes by paths, so that symbolic links lead out of the directory; it copies files that are renamed
//! into another directory; and it takes each read and write through a thread of a pool. Here the kernel resolves all paths
//! below the directory (openat2(2), RESOLVE_IN_ROOT), and files are read and written where the guest runs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use virtual_fs::{
    DirEntry, FileOpener, FileSystem, FileType, FsError, Metadata, OpenOptions, OpenOptionsConfig, ReadDir, Result,
    VirtualFile,
};

use crate::{hooks, paths};

/// One directory of the host; cheap to clone.
#[derive(Clone, Debug)]
pub struct HostDirectory {
    root: Arc<OwnedFd>,
    read_only: bool,
}

impl HostDirectory {
    pub fn open(path: &str, read_only: bool) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Arc::new(rustix::fs::open(path, flags, Mode::empty())?);
        Ok(Self { root, read_only })
    }

    /// Whether it is the same open directory.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o666) } else { Mode::empty() };
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(&*self.root, below(path), flags, mode, ResolveFlags::IN_ROOT).map_err(error)
    }

    /// The directory that a path's last component is in, and that component.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(FsError::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// The same of a path that is to be changed.
    fn parent_to_change<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        if self.read_only {
            return Err(FsError::PermissionDenied);
        }
        self.parent(path)
    }

    pub fn stat(&self, path: &Path, follow: bool) -> Result<fs::Metadata> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        Ok(File::from(self.open_at(path, flags)?).metadata()?)
    }

    pub fn set_times(&self, path: &Path, follow: bool, times: &Timestamps) -> Result<()> {
        let (parent, name) = self.parent_to_change(path)?;
        if follow && self.stat(path, false)?.is_symlink() {
            let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            return rustix::fs::futimens(file, times).map_err(error);
        }
        rustix::fs::utimensat(parent, name, times, AtFlags::SYMLINK_NOFOLLOW).map_err(error)
    }

    /// Whether a directory has no entries.
    pub fn is_empty(&self, path: &Path) -> bool {
        let entries = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Dir::read_from);
        let Ok(Ok(entries)) = entries else { return false };
        entries.flatten().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
    }

    fn remove(&self, path: &Path, flags: AtFlags) -> Result<()> {
        let (parent, name) = self.parent_to_change(path)?;
        rustix::fs::unlinkat(parent, name, flags).map_err(error)
    }
}

impl FileSystem for HostDirectory {
    fn readlink(&self, path: &Path) -> Result<PathBuf> {
        let (parent, name) = self.parent(path)?;
        let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(error)?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    fn read_dir(&self, path: &Path) -> Result<ReadDir> {
        let directory = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if name == "." || name == ".." {
                continue;
            }
            if let Ok(fd) = rustix::fs::openat(&directory, name, flags, Mode::empty()) {
                let metadata = File::from(fd).metadata().map(|found| metadata(&found)).map_err(FsError::from);
                entries.push(DirEntry { path: path.join(name), metadata });
            } // else it is gone
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(ReadDir::new(entries))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.parent_to_change(path)?;
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o777)).map_err(error)
    }

    fn create_symlink(&self, source: &Path, target: &Path) -> Result<()> {
        let (parent, name) = self.parent_to_change(target)?;
        rustix::fs::symlinkat(source, parent, name).map_err(error)
    }

    fn hard_link(&self, source: &Path, target: &Path) -> Result<()> {
        let (from, name) = self.parent(source)?;
        let (to, new_name) = self.parent_to_change(target)?;
        rustix::fs::linkat(from, name, to, new_name, AtFlags::empty()).map_err(error)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.remove(path, AtFlags::REMOVEDIR)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (old, name) = self.parent_to_change(from)?;
            let (new, new_name) = self.parent_to_change(to)?;
            rustix::fs::renameat(old, name, new, new_name).map_err(error)
        })
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        Ok(metadata(&self.stat(path, true)?))
    }

    fn symlink_metadata(&self, path: &Path) -> Result<Metadata> {
        Ok(metadata(&self.stat(path, false)?))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.remove(path, AtFlags::empty())
    }

    fn new_open_options(&self) -> OpenOptions<'_> {
        OpenOptions::new(self)
    }
}

impl FileOpener for HostDirectory {
    /// `append` is WASIX's own affair: it says where each write goes.
    fn open(&self, path: &Path, conf: &OpenOptionsConfig) -> Result<Box<dyn VirtualFile + Send + Sync + 'static>> {
        let writes = conf.write || conf.append;
        if self.read_only && (writes || conf.create || conf.create_new || conf.truncate) {
            return Err(FsError::PermissionDenied);
        }
        let access = match (conf.read, writes) {
            (_, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (true, true) => OFlags::RDWR,
        };
        let mut flags = access | OFlags::NOCTTY;
        flags.set(OFlags::CREATE, conf.create || conf.create_new);
        flags.set(OFlags::EXCL, conf.create_new);
        flags.set(OFlags::TRUNC, conf.truncate);
        let file = File::from(self.open_at(path, flags)?);
        let kind = file.metadata()?.file_type();
        let seekable = kind.is_file() || kind.is_block_device();
        Ok(Box::new(HostFile { directory: self.clone(), path: path.to_owned(), file, seekable, position: 0 }))
    }
}

/// An open file. Reads and writes block, as the guest's own thread does them.
#[derive(Debug)]
struct HostFile {
    directory: HostDirectory,
    /// Under which it was opened.
    path: PathBuf,
    file: File,
    seekable: bool,
    position: u64,
}

impl HostFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.seekable {
            return self.file.read(buffer);
        }
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.seekable {
            return self.file.write(data);
        }
        if hooks::guest_appends() {
            self.position = self.metadata().len;
        }
        let count = self.file.write_at(data, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn metadata(&self) -> Metadata {
        let Ok(found) = self.file.metadata() else { return Metadata::default() };
        paths::seen(&found);
        metadata(&found)
    }

    /// Whether a path names this very file.
    fn is_at(&self, path: &Path) -> bool {
        match (self.directory.stat(path, false), self.file.metadata()) {
            (Ok(there), Ok(own)) => (there.dev(), there.ino()) == (own.dev(), own.ino()),
            _ => false,
        }
    }

    /// Where it is now: it may have been renamed since it was opened.
    fn current_path(&self) -> Option<PathBuf> {
        if self.is_at(&self.path) {
            return Some(self.path.clone());
        }
        let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        let root = link(self.directory.root.as_raw_fd())?;
        let path = Path::new("/").join(link(self.file.as_raw_fd())?.strip_prefix(root).ok()?);
        self.is_at(&path).then_some(path)
    }
}

impl VirtualFile for HostFile {
    fn last_accessed(&self) -> u64 {
        self.metadata().accessed
    }

    fn last_modified(&self) -> u64 {
        self.metadata().modified
    }

    fn created_time(&self) -> u64 {
        self.metadata().created
    }

    fn set_times(&mut self, atime: Option<u64>, mtime: Option<u64>) -> Result<()> {
        let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
        rustix::fs::futimens(&self.file, &times).map_err(error)
    }

    fn size(&self) -> u64 {
        self.metadata().len
    }

    fn set_len(&mut self, new_size: u64) -> Result<()> {
        self.file.set_len(new_size).map_err(FsError::from)
    }

    fn unlink(&mut self) -> Result<()> {
        let path = self.current_path().ok_or(FsError::EntryNotFound)?;
        self.directory.remove_file(&path)
    }

    fn poll_read_ready(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.metadata().len.saturating_sub(self.position) as usize))
    }

    fn poll_write_ready(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(8192))
    }
}

impl AsyncRead for HostFile {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.read(buf.initialize_unfilled())?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HostFile {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(data))
    }

    /// WASIX flushes a file when it is closed, too; only what the guest asks for waits for the disk.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.seekable && hooks::guest_syncs() { self.file.sync_all() } else { Ok(()) })
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for HostFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let target = match position {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.metadata().len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

/// A guest's absolute path, from the directory's point of view.
fn below(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn metadata(found: &fs::Metadata) -> Metadata {
    let kind = found.file_type();
    Metadata {
        ft: FileType {
            dir: kind.is_dir(),
            file: kind.is_file(),
            symlink: kind.is_symlink(),
            char_device: kind.is_char_device(),
            block_device: kind.is_block_device(),
            socket: kind.is_socket(),
            fifo: kind.is_fifo(),
        },
        accessed: nanoseconds(found.accessed()),
        created: found.ctime() as u64 * 1_000_000_000 + found.ctime_nsec() as u64, // WASIX's name for the change time
        modified: nanoseconds(found.modified()),
        len: found.len(),
    }
}

fn nanoseconds(time: io::Result<SystemTime>) -> u64 {
    let since = time.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.as_ref().map_or(0, Duration::as_nanos) as u64
}

/// A time to set; `None` leaves it as it is.
fn timespec(time: Option<u64>) -> Timespec {
    match time {
        Some(time) => Timespec { tv_sec: (time / 1_000_000_000) as i64, tv_nsec: (time % 1_000_000_000) as i64 },
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    }
}

/// In the words that WASIX has. It has none for a read-only file system, which the guest is told all the same
/// (``hooks.rs``); that one is "denied" lets it open files for reading that it would rather open for both.
fn error(errno: Errno) -> FsError {
    if errno == Errno::ROFS {
        hooks::found_read_only();
    }
    match errno {
        Errno::ROFS | Errno::TXTBSY | Errno::PERM | Errno::ACCESS => FsError::PermissionDenied,
        Errno::NOTDIR => FsError::BaseNotDirectory,
        Errno::NOTEMPTY => FsError::DirectoryNotEmpty,
        Errno::NOSPC | Errno::DQUOT => FsError::WriteZero,
        Errno::NXIO => FsError::NoDevice,
        other => FsError::from(io::Error::from(other)),
    }
}
