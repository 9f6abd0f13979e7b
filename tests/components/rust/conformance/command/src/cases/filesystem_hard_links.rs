//! A file can have a second name, in any directory, where there is none yet. Directories cannot, and neither name
//! may be outside.
use checks::{gives, ok};
use wasip3::filesystem::types::ErrorCode;

use crate::files::{link_out, root};

pub async fn run() {
    let dir = &root();
    link_out(dir, "out").await;
    gives!(dir.link(".", dir, "new").await, Err(ErrorCode::NotPermitted));
    for (old, new) in [("", "new"), ("", ""), ("a.txt", "")] {
        gives!(dir.link(old, dir, new).await, Err(ErrorCode::NoEntry));
    }
    gives!(dir.link("a.txt", dir, "a.txt").await, Err(ErrorCode::Exist));
    for outside in ["/", "..", "out/new"] {
        gives!(dir.link(outside, dir, "a.txt").await, Err(ErrorCode::NotPermitted));
        gives!(dir.link("a.txt", dir, outside).await, Err(ErrorCode::NotPermitted));
    }
    gives!(dir.link("a.txt", dir, "/a.txt").await, Err(ErrorCode::NotPermitted));

    ok!(dir.link("a.txt", dir, "new").await);
    ok!(dir.unlink("new").await);
    ok!(dir.mkdir("below").await);
    ok!(dir.link("a.txt", dir, "below/new").await);
    ok!(dir.unlink("below/new").await);
    gives!(dir.link("below", dir, "new").await, Err(ErrorCode::NotPermitted));
    ok!(dir.rmdir("below").await);
}
