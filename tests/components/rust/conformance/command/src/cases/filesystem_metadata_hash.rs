//! Where two hashes are equal, all else that is known of the two files is, too. Of what is outside, or not there,
//! there is none.
use checks::{gives, ok, same};
use wasip3::filesystem::types::ErrorCode;

use crate::files::{root, FOLLOW, NO_FOLLOW};

pub async fn run() {
    let dir = root();
    let child = dir.child("child").await;
    ok!(dir.link("a.txt", &child, "again").await);
    let (a, b) = (ok!(dir.to_read("a.txt").await), ok!(dir.to_read("b.txt").await));
    let again = ok!(child.to_read("again").await);
    for (one, other) in [(&*dir, &*dir), (&dir, &a), (&a, &a), (&a, &b), (&a, &again), (&b, &again)] {
        let (hash, other_hash) = (ok!(one.metadata_hash().await), ok!(other.metadata_hash().await));
        if (hash.lower, hash.upper) == (other_hash.lower, other_hash.upper) {
            same!(ok!(one.stat().await), ok!(other.stat().await));
        }
    }

    for outside in ["/", "/etc/passwd", "/nothing"] {
        gives!(dir.metadata_hash_at(NO_FOLLOW, outside.into()).await, Err(ErrorCode::NotPermitted));
    }
    gives!(dir.metadata_hash_at(NO_FOLLOW, "".into()).await, Err(ErrorCode::NoEntry));
    let pairs = [(".", &dir, "a.txt"), ("a.txt", &dir, "a.txt"), ("a.txt", &dir, "b.txt"), ("a.txt", &child, "again")];
    for (path, other_dir, other) in pairs {
        for flags in [NO_FOLLOW, FOLLOW] {
            let hash = ok!(dir.metadata_hash_at(NO_FOLLOW, path.into()).await);
            let other_hash = ok!(other_dir.metadata_hash_at(flags, other.into()).await);
            if (hash.lower, hash.upper) == (other_hash.lower, other_hash.upper) {
                same!(ok!(dir.about(path).await), ok!(other_dir.stat_at(flags, other.into()).await));
            }
        }
    }

    drop((a, b, again));
    ok!(child.unlink("again").await);
    drop(child);
    ok!(dir.rmdir("child").await);
}
