//! What guests do with directories and files.
use std::ops::Deref;

use checks::{failed, ok};
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, DescriptorStat, ErrorCode, OpenFlags, PathFlags};

pub const NO_FOLLOW: PathFlags = PathFlags::empty();
pub const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;
pub const READ: DescriptorFlags = DescriptorFlags::READ;
pub const READ_WRITE: DescriptorFlags = DescriptorFlags::READ.union(DescriptorFlags::WRITE);
pub const NEW: OpenFlags = OpenFlags::CREATE.union(OpenFlags::EXCLUSIVE);

type Result<T> = std::result::Result<T, ErrorCode>;

/// A directory. Calls with a path follow no symbolic link at its end.
#[derive(Debug)]
pub struct Dir(Descriptor);

impl Deref for Dir {
    type Target = Descriptor;

    fn deref(&self) -> &Descriptor {
        &self.0
    }
}

/// The only one that was preopened.
pub fn root() -> Dir {
    let mut found = get_directories();
    if found.len() != 1 {
        failed(file!(), line!(), &format!("{} directories are preopened, not one", found.len()));
    }
    Dir(found.remove(0).0)
}

impl Dir {
    pub async fn open(&self, path: &str, how: OpenFlags, access: DescriptorFlags) -> Result<Descriptor> {
        self.open_at(NO_FOLLOW, path.into(), how, access).await
    }

    /// Opens what exists, to read it.
    pub async fn to_read(&self, path: &str) -> Result<Descriptor> {
        self.open(path, OpenFlags::empty(), READ).await
    }

    /// A new file, to read and write it.
    pub async fn create(&self, path: &str) -> Descriptor {
        ok!(self.open(path, NEW, READ_WRITE).await)
    }

    /// A new directory.
    pub async fn child(&self, path: &str) -> Dir {
        ok!(self.mkdir(path).await);
        Dir(ok!(self.open(path, OpenFlags::DIRECTORY, DescriptorFlags::MUTATE_DIRECTORY).await))
    }

    pub async fn mkdir(&self, path: &str) -> Result<()> {
        self.create_directory_at(path.into()).await
    }

    pub async fn rmdir(&self, path: &str) -> Result<()> {
        self.remove_directory_at(path.into()).await
    }

    pub async fn unlink(&self, path: &str) -> Result<()> {
        self.unlink_file_at(path.into()).await
    }

    pub async fn symlink(&self, target: &str, path: &str) -> Result<()> {
        self.symlink_at(target.into(), path.into()).await
    }

    /// A second name of a file, in this directory or another.
    pub async fn link(&self, path: &str, other: &Dir, new: &str) -> Result<()> {
        self.link_at(NO_FOLLOW, path.into(), other, new.into()).await
    }

    pub async fn rename(&self, path: &str, other: &Dir, new: &str) -> Result<()> {
        self.rename_at(path.into(), other, new.into()).await
    }

    pub async fn about(&self, path: &str) -> Result<DescriptorStat> {
        self.stat_at(NO_FOLLOW, path.into()).await
    }
}

/// A symbolic link that leads out of the directory.
pub async fn link_out(dir: &Dir, path: &str) {
    ok!(dir.symlink("..", path).await);
}

pub async fn size(file: &Descriptor) -> u64 {
    ok!(file.stat().await).size
}
