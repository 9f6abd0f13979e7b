//! What has no name cannot be opened, nor what is outside, by a link that leads there neither.
use checks::gives;
use wasip3::filesystem::types::{ErrorCode, OpenFlags};

use crate::files::{link_out, root, FOLLOW, READ};

pub async fn run() {
    let dir = root();
    link_out(&dir, "out").await;
    gives!(dir.to_read("").await, Err(ErrorCode::NoEntry));
    gives!(dir.to_read("..").await, Err(ErrorCode::NotPermitted));
    gives!(dir.to_read("/").await, Err(ErrorCode::NotPermitted));
    gives!(dir.open_at(FOLLOW, "out".into(), OpenFlags::empty(), READ).await, Err(ErrorCode::NotPermitted));
}
