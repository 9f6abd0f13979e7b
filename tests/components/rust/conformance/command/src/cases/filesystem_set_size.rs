//! A file has the size that it is given, at once, and for all who have it open; when it has no name any more,
//! too. Who may only read it gives it none, and none is as great as a number can be.
use checks::{gives, ok, same};
use wasip3::filesystem::types::{ErrorCode, OpenFlags};

use crate::files::{root, size, READ_WRITE};

pub async fn run() {
    let dir = root();
    let file = dir.create("file").await;
    same!(size(&file).await, 0);
    ok!(file.set_size(50).await);
    same!(size(&file).await, 50);
    drop(file);

    let file = ok!(dir.open("file", OpenFlags::empty(), READ_WRITE).await);
    let reader = ok!(dir.to_read("file").await);
    same!((size(&file).await, size(&reader).await), (50, 50));
    ok!(file.set_size(70).await);
    same!((size(&file).await, size(&reader).await), (70, 70));
    let emptied = ok!(dir.open("file", OpenFlags::TRUNCATE, READ_WRITE).await);
    same!((size(&emptied).await, size(&reader).await), (0, 0));

    gives!(reader.set_size(100).await, Err(ErrorCode::Invalid | ErrorCode::BadDescriptor));
    gives!(file.set_size(u64::MAX).await, Err(ErrorCode::Invalid | ErrorCode::FileTooLarge));

    ok!(dir.unlink("file").await);
    same!(size(&file).await, 0);
    ok!(file.set_size(50).await);
    same!((size(&file).await, size(&reader).await), (50, 50));
}
