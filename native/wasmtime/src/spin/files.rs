//! The files that a component sees: its manifest's ``files``, read-only, and no others. They are a tree of our own, whose
//! leaves are the container's; ``shimd/apps/spin/files.py`` has the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::application::{Described, Mount};
use super::glob::{glob, is_pattern};

/// The container's files and directories, relative to its root, by a guest's paths without their first slash.
pub struct Tree {
    root: PathBuf,
    entries: BTreeMap<String, String>,
}

/// Where a path leads.
pub enum At {
    /// To one of the tree's own directories, by its path.
    Own(String),
    /// To what is the container's, relative to its root.
    Real(String),
}

pub enum Refused {
    NotPermitted,
    NoEntry,
    NotDirectory,
}

/// The beginnings of a component's world, with its directory, or the root that its tree's files are below; and that tree.
///
/// :raises: something is not there
pub fn world(described: &Described, root: &str) -> Result<(WasiCtxBuilder, Option<Tree>), String> {
    let mut wasi = WasiCtxBuilder::new();
    let failed = |error: String| format!("component.{}: its files cannot be had: {error}", described.id);
    if let Some(directory) = described.directory {
        // By no path of /proc's: there need not be one.
        let back = File::open(".").map_err(|error| failed(error.to_string()))?;
        enter(directory).map_err(failed)?;
        let had =
            wasi.preopened_dir(".", "/", FsPerms::ReadOnly).map(drop).map_err(|error| failed(format!("{error:#}")));
        enter(back.as_raw_fd()).map_err(failed)?;
        had?;
        return Ok((wasi, None));
    }
    if described.mounts.is_empty() {
        return Ok((wasi, None));
    }
    let tree = Tree::new(described, Path::new(root))?;
    wasi.preopened_dir(root, "/", FsPerms::ReadOnly).map_err(|error| failed(format!("{error:#}")))?;
    Ok((wasi, Some(tree)))
}

/// Make it the working directory.
pub fn enter(directory: i32) -> Result<(), String> {
    if unsafe { libc::fchdir(directory) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

impl Tree {
    fn new(described: &Described, root: &Path) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        let excluded: BTreeSet<String> = described.excluded.iter().flat_map(|it| glob(root, it)).collect();
        for Mount { source, destination } in &described.mounts {
            let missing = || format!("{}.files names {source}, which does not exist", described.manifest);
            if let Some(destination) = destination {
                if !root.join(source.trim_start_matches('/')).exists() {
                    return Err(missing());
                }
                entries.insert(normal(destination), normal(source));
                continue;
            }
            let found = glob(root, source);
            if found.is_empty() && !is_pattern(source) {
                return Err(missing());
            }
            // A pattern finds files only; a directory is meant where it is named itself.
            let meant = |path: &String| !is_pattern(source) || root.join(path).is_file();
            let kept = found.into_iter().filter(|path| !excluded.contains(path)).filter(meant);
            entries.extend(kept.map(|path| (normal(&path), path)));
        }
        Ok(Self { root: root.to_path_buf(), entries })
    }

    /// :param below: the path of one of the tree's own directories
    pub fn at(&self, below: &str, path: &str) -> Result<At, Refused> {
        let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
        if parts.contains(&"..") {
            return Err(Refused::NotPermitted);
        }
        let full = [below].into_iter().filter(|it| !it.is_empty()).chain(parts).collect::<Vec<_>>().join("/");
        let longest = self.entries.iter().filter(|(key, _)| is_below(key, &full)).max_by_key(|(key, _)| key.len());
        if let Some((key, host)) = longest {
            let rest = full[key.len()..].trim_matches('/');
            if rest.is_empty() {
                return Ok(At::Real(if host.is_empty() { ".".into() } else { host.clone() }));
            }
            if !self.root.join(host).is_dir() {
                return Err(Refused::NotDirectory);
            }
            return Ok(At::Real(if host.is_empty() { rest.into() } else { format!("{host}/{rest}") }));
        }
        let start = format!("{full}/");
        if full.is_empty() || self.entries.keys().any(|key| key.starts_with(&start)) {
            return Ok(At::Own(full));
        }
        Err(Refused::NoEntry)
    }

    /// What one of the tree's own directories has: names, and whether they are directories.
    pub fn names(&self, of: &str) -> BTreeMap<String, bool> {
        let start = if of.is_empty() { String::new() } else { format!("{of}/") };
        let below = self.entries.iter().filter_map(|(key, host)| Some((key.strip_prefix(&start)?, host)));
        let named = below.filter(|(rest, _)| !rest.is_empty()).map(|(rest, host)| match rest.split_once('/') {
            Some((name, _)) => (name.to_string(), true),
            None => (rest.to_string(), self.root.join(host).is_dir()),
        });
        named.collect()
    }
}

/// Whether a path is an entry's, or below it; the empty one is the whole.
fn is_below(key: &str, full: &str) -> bool {
    key.is_empty() || full.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn normal(path: &str) -> String {
    path.split('/').filter(|it| !it.is_empty() && *it != ".").collect::<Vec<_>>().join("/")
}
