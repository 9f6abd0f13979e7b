//! What WASIX does not tell of a guest's descriptors: where they are in the host's directories, and whether they append.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use virtual_fs::{FileSystem, FsError, Result};

use crate::files::HostDirectory;

#[derive(Clone, Debug)]
struct Descriptor {
    directory: HostDirectory,
    /// From the directory's point of view.
    path: PathBuf,
    appends: bool,
}

/// By number. One that was closed stays until its number is taken again; nobody can ask for it.
#[derive(Debug, Default)]
pub struct Descriptors(Mutex<HashMap<i32, Descriptor>>);

impl Descriptors {
    pub fn preopened(&self, fd: i32, directory: HostDirectory) {
        self.0.lock().unwrap().insert(fd, Descriptor { directory, path: "/".into(), appends: false });
    }

    /// :param path: as the guest gave it, below ``base`` unless it is absolute
    pub fn opened(&self, fd: i32, base: i32, path: &str, appends: bool) {
        let mut known = self.0.lock().unwrap();
        match known.get(&base).map(|found| Descriptor { path: found.path.join(path), appends, ..found.clone() }) {
            Some(descriptor) => known.insert(fd, descriptor),
            None => known.remove(&fd),
        };
    }

    pub fn renumbered(&self, from: i32, to: i32) {
        let mut known = self.0.lock().unwrap();
        match known.remove(&from) {
            Some(descriptor) => known.insert(to, descriptor),
            None => known.remove(&to),
        };
    }

    pub fn set_appends(&self, fd: i32, appends: bool) {
        if let Some(descriptor) = self.0.lock().unwrap().get_mut(&fd) {
            descriptor.appends = appends;
        }
    }

    pub fn appends(&self, fd: i32) -> bool {
        self.0.lock().unwrap().get(&fd).is_some_and(|descriptor| descriptor.appends)
    }

    /// Make a hard link.
    pub fn link(&self, from: (i32, &str), to: (i32, &str)) -> Result<()> {
        let known = self.0.lock().unwrap();
        let (source, target) = (known.get(&from.0), known.get(&to.0));
        let (source, target) = (source.ok_or(FsError::InvalidFd)?, target.ok_or(FsError::InvalidFd)?);
        if !source.directory.is(&target.directory) {
            return Err(FsError::Unsupported);
        }
        source.directory.hard_link(&within(source, from.1)?, &within(target, to.1)?)
    }
}

/// A path that does not end with a slash, which would say that a directory is meant.
fn within(base: &Descriptor, path: &str) -> Result<PathBuf> {
    if path.is_empty() || path.ends_with('/') || Path::new(path).is_absolute() {
        return Err(FsError::EntryNotFound);
    }
    Ok(base.path.join(path))
}
