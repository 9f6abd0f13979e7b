//! Directories are made where there is nothing, and removed where there is one, below the descriptor's own
//! directory only: no way of writing a path leads out of it.
use checks::{gives, ok};
use wasip3::filesystem::types::ErrorCode;

use crate::files::{link_out, root};

pub async fn run() {
    let dir = root();
    link_out(&dir, "out").await;
    gives!(dir.mkdir("").await, Err(ErrorCode::NoEntry));
    gives!(dir.mkdir(".").await, Err(ErrorCode::Exist));
    gives!(dir.mkdir("a.txt").await, Err(ErrorCode::Exist));
    for outside in ["..", "/", "../new", "out/new"] {
        gives!(dir.mkdir(outside).await, Err(ErrorCode::NotPermitted));
    }

    ok!(dir.mkdir("new").await);
    for outside in ["../new", "out/new", "new/../../new", "..", "/", "out/"] {
        gives!(dir.rmdir(outside).await, Err(ErrorCode::NotPermitted));
    }
    ok!(dir.rmdir("new").await);
    ok!(dir.mkdir("new/").await);
    ok!(dir.rmdir("new").await);
    ok!(dir.mkdir("new").await);
    ok!(dir.rmdir("new").await);

    gives!(dir.rmdir("").await, Err(ErrorCode::NoEntry));
    gives!(dir.rmdir(".").await, Err(ErrorCode::Invalid));
    gives!(dir.rmdir("a.txt").await, Err(ErrorCode::NotDirectory));
    gives!(dir.rmdir("nothing").await, Err(ErrorCode::NoEntry));

    let child = dir.child("child").await;
    ok!(dir.mkdir("sibling").await);
    ok!(child.mkdir("new").await);
    ok!(child.rmdir("new").await);
    for outside in ["../new", "../sibling/new"] {
        gives!(child.mkdir(outside).await, Err(ErrorCode::NotPermitted));
        gives!(child.rmdir(outside).await, Err(ErrorCode::NotPermitted));
    }
    gives!(child.rmdir("../sibling").await, Err(ErrorCode::NotPermitted));
    drop(child);
    ok!(dir.rmdir("child").await);
}
