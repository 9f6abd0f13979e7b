//! A file can be opened in its directory. A path of a directory below does not lead to it.
use checks::{gives, ok};
use wasip3::filesystem::types::ErrorCode;

use crate::files::{root, NEW, READ};

pub async fn run() {
    let dir = root();
    let child = dir.child("child").await;
    drop(ok!(dir.open("file", NEW, READ).await));
    drop(ok!(dir.to_read("file").await));
    gives!(child.to_read("../file").await, Err(ErrorCode::NotPermitted));
    drop(child);
    ok!(dir.rmdir("child").await);
    ok!(dir.unlink("file").await);
}
