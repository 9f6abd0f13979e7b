//! What WASIX does not tell of a guest's descriptors: where they are in the host's directories, and whether they append.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::Timestamps;
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
        match known.get(&from).cloned() {
            Some(descriptor) => known.insert(to, descriptor),
            None => known.remove(&to),
        };
    }

    /// What was opened there, or below, moves along.
    pub fn renamed(&self, from: (i32, &str), to: (i32, &str)) {
        let (Some((directory, old)), Some((_, new))) = (self.at(from.0, from.1), self.at(to.0, to.1)) else { return };
        for descriptor in self.0.lock().unwrap().values_mut() {
            if descriptor.directory.is(&directory)
                && let Ok(below) = descriptor.path.strip_prefix(&old)
            {
                descriptor.path = if below.as_os_str().is_empty() { new.clone() } else { new.join(below) };
            }
        }
    }

    pub fn set_appends(&self, fd: i32, appends: bool) {
        if let Some(descriptor) = self.0.lock().unwrap().get_mut(&fd) {
            descriptor.appends = appends;
        }
    }

    pub fn appends(&self, fd: i32) -> bool {
        self.0.lock().unwrap().get(&fd).is_some_and(|descriptor| descriptor.appends)
    }

    /// `None`, here and below: it is not in a directory of the host's.
    pub fn stat(&self, base: i32, path: &str, follow: bool) -> Option<Result<Metadata>> {
        let (directory, path) = self.at(base, path)?;
        Some(directory.stat(&path, follow))
    }

    pub fn set_times(&self, base: i32, path: &str, follow: bool, times: &Timestamps) -> Option<Result<()>> {
        let (directory, path) = self.at(base, path)?;
        Some(directory.set_times(&path, follow, times))
    }

    pub fn is_empty(&self, base: i32, path: &str) -> bool {
        self.at(base, path).is_some_and(|(directory, path)| directory.is_empty(&path))
    }

    pub fn remove_directory(&self, base: i32, path: &str) -> Option<Result<()>> {
        let (directory, path) = self.at(base, path)?;
        Some(directory.remove_dir(&path))
    }

    /// Make a hard link.
    pub fn link(&self, from: (i32, &str), to: (i32, &str)) -> Result<()> {
        if from.1.ends_with('/') || to.1.ends_with('/') {
            return Err(FsError::EntryNotFound); // that names a directory
        }
        let (source, from) = self.at(from.0, from.1).ok_or(FsError::Unsupported)?;
        let (target, to) = self.at(to.0, to.1).ok_or(FsError::Unsupported)?;
        if !source.is(&target) {
            return Err(FsError::Unsupported);
        }
        source.hard_link(&from, &to)
    }

    fn at(&self, base: i32, path: &str) -> Option<(HostDirectory, PathBuf)> {
        let known = self.0.lock().unwrap();
        let base = known.get(&base).filter(|_| !path.is_empty() && Path::new(path).is_relative())?;
        Some((base.directory.clone(), base.path.join(path)))
    }
}
