//! Directories are not removed as files are, nor is what is outside, or not there.
use checks::gives;
use wasip3::filesystem::types::ErrorCode;

use crate::files::{link_out, root};

pub async fn run() {
    let dir = root();
    link_out(&dir, "out").await;
    for path in ["", "nothing"] {
        gives!(dir.unlink(path).await, Err(ErrorCode::NoEntry));
    }
    for directory in [".", "..", "../", "/"] {
        gives!(dir.unlink(directory).await, Err(ErrorCode::NotPermitted | ErrorCode::IsDirectory));
    }
    for outside in ["/etc/passwd", "out/new"] {
        gives!(dir.unlink(outside).await, Err(ErrorCode::NotPermitted));
    }
}
