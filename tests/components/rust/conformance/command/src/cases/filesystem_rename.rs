//! A file gets another name, in any directory, which takes the name from a link that had it. What is not there
//! gets none, nor does the directory itself, and no name is outside.
use checks::{gives, ok};
use wasip3::filesystem::types::ErrorCode;

use crate::files::{link_out, root};

pub async fn run() {
    let dir = &root();
    link_out(dir, "out").await;
    let child = &dir.child("child").await;

    ok!(dir.rename("a.txt", dir, "a.txt").await);
    ok!(dir.symlink("a.txt", "link").await);
    ok!(dir.rename("a.txt", dir, "link").await);
    gives!(dir.rename("a.txt", dir, "a.txt").await, Err(ErrorCode::NoEntry));
    ok!(dir.rename("link", dir, "a.txt").await);
    gives!(dir.rename("link", dir, "a.txt").await, Err(ErrorCode::NoEntry));
    gives!(dir.rename("nothing", dir, "new").await, Err(ErrorCode::NoEntry));
    gives!(dir.rename(".", dir, "new").await, Err(ErrorCode::Busy | ErrorCode::Invalid));

    ok!(dir.rename("a.txt", dir, "other").await);
    gives!(dir.rename("a.txt", dir, "new").await, Err(ErrorCode::NoEntry));
    ok!(dir.rename("other", dir, "a.txt").await);
    for outside in ["../new", "out/new", "/tmp/new"] {
        gives!(dir.rename("a.txt", dir, outside).await, Err(ErrorCode::NotPermitted));
    }

    ok!(dir.rename("a.txt", child, "moved").await);
    gives!(dir.rename("a.txt", dir, "moved").await, Err(ErrorCode::NoEntry));
    gives!(dir.rename("moved", dir, "moved").await, Err(ErrorCode::NoEntry));
    gives!(dir.rename("a.txt", child, "moved").await, Err(ErrorCode::NoEntry));
    ok!(child.rename("moved", dir, "a.txt").await);
    gives!(child.rename("moved", dir, "a.txt").await, Err(ErrorCode::NoEntry));
    ok!(dir.rmdir("child").await);
}
