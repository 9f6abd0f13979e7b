//! ``wasi:filesystem`` for a component with a tree of files (``files.rs``): its own directories are stood in for by the root
//! that its files are below, of which nothing else is to be had. So whatever takes a path, or lists, comes by here first.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmtime::component::{Access, Accessor, FutureReader, Linker, Resource, ResourceType, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::ReaddirIterator;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self as older, Host as _, HostDescriptor as _, HostDirectoryEntryStream as _,
};
use wasmtime_wasi::p3::bindings::filesystem::types::{self as newer, HostDescriptorWithStore};
use wasmtime_wasi::p3::filesystem::FilesystemResult;

use super::files::{At, Refused, Tree};
use crate::host::Host;

/// As the crate has them.
const OLDER: &str = "0.2.12";
const NEWER: &str = "0.3.0";

type Guest<'a> = StoreContextMut<'a, Host>;
type Own = Resource<Descriptor>;
type Listing = Resource<ReaddirIterator>;
type Opening<P, O, F> = (Own, P, String, O, F);

impl From<Refused> for older::ErrorCode {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotPermitted => Self::NotPermitted,
            Refused::NoEntry => Self::NoEntry,
            Refused::NotDirectory => Self::NotDirectory,
        }
    }
}

impl From<Refused> for newer::ErrorCode {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotPermitted => Self::NotPermitted,
            Refused::NoEntry => Self::NoEntry,
            Refused::NotDirectory => Self::NotDirectory,
        }
    }
}

/// A component's tree, and the descriptors that are directories of it, with their paths.
#[derive(Default)]
pub struct Trees {
    tree: Option<Arc<Tree>>,
    own: Vec<(u32, String)>,
    /// What is still to be told of the tree's directories, of WASI 0.2.
    lists: Vec<(u32, VecDeque<(String, bool)>)>,
}

impl Trees {
    pub fn new(tree: Option<Arc<Tree>>) -> Self {
        Self { tree, ..Self::default() }
    }

    fn own(&self, descriptor: &Own) -> Option<(&Arc<Tree>, &str)> {
        let path = self.own.iter().find(|(rep, _)| *rep == descriptor.rep()).map(|(_, path)| path.as_str())?;
        Some((self.tree.as_ref()?, path))
    }

    /// Where a path leads; the path itself, if the descriptor is no directory of the tree.
    fn at(&self, descriptor: &Own, path: String) -> Result<At, Refused> {
        match self.own(descriptor) {
            Some((tree, below)) => tree.at(below, &path),
            None => Ok(At::Real(path)),
        }
    }

    fn add(&mut self, descriptor: &Own, path: String) {
        self.own.push((descriptor.rep(), path));
    }

    fn remove(&mut self, rep: u32) {
        self.own.retain(|(own, _)| *own != rep);
    }
}

impl Host {
    fn directories(&mut self) -> wasmtime::Result<Vec<(Own, String)>> {
        let found = self.filesystem().get_directories()?;
        if self.trees.tree.is_some() {
            found.iter().for_each(|(descriptor, _)| self.trees.add(descriptor, String::new()));
        }
        Ok(found)
    }

    /// Another of the tree's directories.
    fn own_directory(&mut self, like: &Own, path: String) -> wasmtime::Result<Own> {
        let same = self.table().get(like)?.clone();
        let opened = self.table().push(same)?;
        self.trees.add(&opened, path);
        Ok(opened)
    }

    /// What is in a directory of the tree; ``None``: it is none.
    fn listed(&self, descriptor: &Own) -> Option<Vec<(String, bool)>> {
        self.trees.own(descriptor).map(|(tree, path)| tree.names(path).into_iter().collect())
    }
}

/// In place of the crate's.
pub fn link(linker: &mut Linker<Host>, is_newer: bool) -> wasmtime::Result<()> {
    for version in [OLDER].into_iter().chain(is_newer.then_some(NEWER)) {
        linker
            .instance(&format!("wasi:filesystem/preopens@{version}"))?
            .func_wrap("get-directories", |mut store, (): ()| Ok((store.data_mut().directories()?,)))?;
        linker.instance(&format!("wasi:filesystem/types@{version}"))?.resource(
            "descriptor",
            ResourceType::host::<Descriptor>(),
            |mut store, rep| {
                store.data_mut().trees.remove(rep);
                store.data_mut().table().delete(Own::new_own(rep))?;
                Ok(())
            },
        )?;
    }
    link_older(linker)?;
    if is_newer { link_newer(linker) } else { Ok(()) }
}

fn link_older(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    use older::{DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, OpenFlags, PathFlags};

    let mut types = linker.instance(&format!("wasi:filesystem/types@{OLDER}"))?;
    types.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: Guest<'_>, (this, how, path, open, flags): Opening<PathFlags, OpenFlags, DescriptorFlags>| {
            Box::new(async move {
                let host = store.data_mut();
                let changes = open.contains(OpenFlags::CREATE)
                    || open.contains(OpenFlags::TRUNCATE)
                    || !(DescriptorFlags::READ).contains(flags);
                if changes {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                Ok((match host.trees.at(&this, path) {
                    Err(refused) => Err(refused.into()),
                    Ok(At::Own(path)) => Ok(host.own_directory(&this, path)?),
                    Ok(At::Real(path)) => match host.filesystem().open_at(this, how, path, open, flags).await {
                        Ok(opened) => Ok(opened),
                        Err(error) => Err(host.filesystem().convert_error_code(error)?),
                    },
                },))
            })
        },
    )?;
    // Its entries are read of a stream of the crate's, which has others: those of what stands in.
    types.func_wrap_async("[method]descriptor.read-directory", |mut store: Guest<'_>, (this,): (Own,)| {
        Box::new(async move {
            let host = store.data_mut();
            let names = host.listed(&this);
            Ok((match host.filesystem().read_directory(this).await {
                Ok(entries) => {
                    if let Some(names) = names {
                        host.trees.lists.push((entries.rep(), names.into()));
                    }
                    Ok(entries)
                }
                Err(error) => Err(host.filesystem().convert_error_code(error)?),
            },))
        })
    })?;
    types.resource("directory-entry-stream", ResourceType::host::<ReaddirIterator>(), |mut store, rep| {
        store.data_mut().trees.lists.retain(|(own, _)| *own != rep);
        store.data_mut().table().delete(Listing::new_own(rep))?;
        Ok(())
    })?;
    types.func_wrap_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: Guest<'_>, (this,): (Listing,)| {
            Box::new(async move {
                let host = store.data_mut();
                if let Some((_, names)) = host.trees.lists.iter_mut().find(|(own, _)| *own == this.rep()) {
                    let entry = names.pop_front().map(|(name, directory)| {
                        let type_ = if directory { DescriptorType::Directory } else { DescriptorType::RegularFile };
                        DirectoryEntry { type_, name }
                    });
                    return Ok((Ok(entry),));
                }
                Ok((match host.filesystem().read_directory_entry(this).await {
                    Ok(entry) => Ok(entry),
                    Err(error) => Err(host.filesystem().convert_error_code(error)?),
                },))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.stat-at",
        |mut store: Guest<'_>, (this, how, path): (Own, PathFlags, String)| {
            Box::new(async move {
                let host = store.data_mut();
                let path = match host.trees.at(&this, path) {
                    Err(refused) => return Ok((Err(refused.into()),)),
                    Ok(At::Own(_)) => ".".into(),
                    Ok(At::Real(path)) => path,
                };
                Ok((match host.filesystem().stat_at(this, how, path).await {
                    Ok(stat) => Ok(stat),
                    Err(error) => Err(host.filesystem().convert_error_code(error)?),
                },))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.metadata-hash-at",
        |mut store: Guest<'_>, (this, how, path): (Own, PathFlags, String)| {
            Box::new(async move {
                let host = store.data_mut();
                let path = match host.trees.at(&this, path) {
                    Err(refused) => return Ok((Err(refused.into()),)),
                    Ok(At::Own(_)) => ".".into(),
                    Ok(At::Real(path)) => path,
                };
                Ok((match host.filesystem().metadata_hash_at(this, how, path).await {
                    Ok(hash) => Ok(hash),
                    Err(error) => Err(host.filesystem().convert_error_code(error)?),
                },))
            })
        },
    )?;
    types.func_wrap_async("[method]descriptor.readlink-at", |mut store: Guest<'_>, (this, path): (Own, String)| {
        Box::new(async move {
            let host = store.data_mut();
            let path = match host.trees.at(&this, path) {
                Err(refused) => return Ok((Err(refused.into()),)),
                Ok(At::Own(_)) => return Ok((Err(ErrorCode::Invalid),)),
                Ok(At::Real(path)) => path,
            };
            Ok((match host.filesystem().readlink_at(this, path).await {
                Ok(path) => Ok(path),
                Err(error) => Err(host.filesystem().convert_error_code(error)?),
            },))
        })
    })
}

fn link_newer(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    use newer::{DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, OpenFlags, PathFlags};

    let mut types = linker.instance(&format!("wasi:filesystem/types@{NEWER}"))?;
    types.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |accessor, (this, how, path, open, flags): Opening<PathFlags, OpenFlags, DescriptorFlags>| {
            Box::pin(async move {
                let changes = open.contains(OpenFlags::CREATE)
                    || open.contains(OpenFlags::TRUNCATE)
                    || !(DescriptorFlags::READ).contains(flags);
                if changes {
                    return Ok((Err(ErrorCode::ReadOnly),));
                }
                let opened = match at(accessor, &this, path) {
                    Err(refused) => Err(refused.into()),
                    Ok(At::Own(path)) => Ok(accessor.with(|mut it| it.get().own_directory(&this, path))?),
                    Ok(At::Real(path)) => {
                        let opened = WasiFilesystem::open_at(&crates(accessor), this, how, path, open, flags).await;
                        told(opened)?
                    }
                };
                Ok((opened,))
            })
        },
    )?;
    types.func_wrap("[method]descriptor.read-directory", |mut store, (this,): (Own,)| {
        let Some(names) = store.data_mut().listed(&this) else {
            let access = Access::<Host, WasiFilesystem>::new(store.as_context_mut(), Host::filesystem);
            return Ok((WasiFilesystem::read_directory(access, this)?,));
        };
        let entry = |(name, directory): (String, bool)| {
            let type_ = if directory { DescriptorType::Directory } else { DescriptorType::RegularFile };
            DirectoryEntry { type_, name }
        };
        let entries = StreamReader::new(&mut store, names.into_iter().map(entry).collect::<Vec<_>>())?;
        let end = FutureReader::new(&mut store, async { Ok::<_, wasmtime::Error>(Ok::<(), ErrorCode>(())) })?;
        Ok(((entries, end),))
    })?;
    types.func_wrap_concurrent(
        "[method]descriptor.stat-at",
        |accessor, (this, how, path): (Own, PathFlags, String)| {
            Box::pin(async move {
                let path = match at(accessor, &this, path) {
                    Err(refused) => return Ok((Err(refused.into()),)),
                    Ok(At::Own(_)) => ".".into(),
                    Ok(At::Real(path)) => path,
                };
                let stat = WasiFilesystem::stat_at(&crates(accessor), this, how, path).await;
                Ok((told(stat)?,))
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.metadata-hash-at",
        |accessor, (this, how, path): (Own, PathFlags, String)| {
            Box::pin(async move {
                let path = match at(accessor, &this, path) {
                    Err(refused) => return Ok((Err(refused.into()),)),
                    Ok(At::Own(_)) => ".".into(),
                    Ok(At::Real(path)) => path,
                };
                let hash = WasiFilesystem::metadata_hash_at(&crates(accessor), this, how, path).await;
                Ok((told(hash)?,))
            })
        },
    )?;
    types.func_wrap_concurrent("[method]descriptor.readlink-at", |accessor, (this, path): (Own, String)| {
        Box::pin(async move {
            let path = match at(accessor, &this, path) {
                Err(refused) => return Ok((Err(refused.into()),)),
                Ok(At::Own(_)) => return Ok((Err(ErrorCode::Invalid),)),
                Ok(At::Real(path)) => path,
            };
            let read = WasiFilesystem::readlink_at(&crates(accessor), this, path).await;
            Ok((told(read)?,))
        })
    })
}

fn told<T>(done: FilesystemResult<T>) -> wasmtime::Result<Result<T, newer::ErrorCode>> {
    match done {
        Ok(it) => Ok(Ok(it)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}

fn at(accessor: &Accessor<Host>, descriptor: &Own, path: String) -> Result<At, Refused> {
    accessor.with(|mut it| it.get().trees.at(descriptor, path))
}

fn crates(accessor: &Accessor<Host>) -> Accessor<Host, WasiFilesystem> {
    accessor.with_getter::<WasiFilesystem>(Host::filesystem)
}
