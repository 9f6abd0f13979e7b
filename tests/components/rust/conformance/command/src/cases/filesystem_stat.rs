//! Of a file, its type and its times are known, by its name and by its descriptor, and can be set by both. Of
//! what is outside, or not there, nothing is.
use checks::{check, gives, ok, same};
use wasip3::clocks::system_clock::Instant;
use wasip3::filesystem::types::{Descriptor, DescriptorType, ErrorCode, NewTimestamp};

use crate::files::{link_out, root, FOLLOW, NO_FOLLOW};

const THEN: Instant = Instant { seconds: 1000, nanoseconds: 0 };
const LATER: Instant = Instant { seconds: 2000, nanoseconds: 0 };

macro_rules! is {
    ($descriptor:expr, $kind:ident) => {
        let about = ok!($descriptor.stat().await);
        gives!(about.type_, DescriptorType::$kind);
        let times = [about.data_access_timestamp, about.data_modification_timestamp, about.status_change_timestamp];
        check!(times.iter().flatten().all(|it| it.nanoseconds < 1_000_000_000));
    };
}

/// Of the last access and the last change.
async fn times(file: &Descriptor) -> (Instant, Instant) {
    let about = ok!(file.stat().await);
    match (about.data_access_timestamp, about.data_modification_timestamp) {
        (Some(access), Some(change)) => (access, change),
        _ => checks::failed(file!(), line!(), "a file has no times"),
    }
}

pub async fn run() {
    let dir = root();
    link_out(&dir, "out").await;
    let (a, b) = (ok!(dir.to_read("a.txt").await), ok!(dir.to_read("b.txt").await));
    is!(dir, Directory);
    is!(a, RegularFile);
    is!(b, RegularFile);
    same!(ok!(dir.about(".").await), ok!(dir.stat().await));

    for path in ["nothing", "."] {
        gives!(a.stat_at(NO_FOLLOW, path.into()).await, Err(ErrorCode::NotDirectory));
    }
    for path in ["", "nothing"] {
        gives!(dir.about(path).await, Err(ErrorCode::NoEntry));
    }
    for outside in ["..", "/", "/etc/passwd"] {
        gives!(dir.about(outside).await, Err(ErrorCode::NotPermitted));
    }
    for outside in ["out", "out/root"] {
        gives!(dir.stat_at(FOLLOW, outside.into()).await, Err(ErrorCode::NotPermitted));
    }

    let set = |flags, path: &str, access, change| {
        let (access, change) = (NewTimestamp::Timestamp(access), NewTimestamp::Timestamp(change));
        dir.set_times_at(flags, path.into(), access, change)
    };
    gives!(set(NO_FOLLOW, "nothing", THEN, LATER).await, Err(ErrorCode::NoEntry));
    gives!(set(FOLLOW, "", THEN, LATER).await, Err(ErrorCode::NoEntry));
    for outside in ["/", "..", "../new", "out/new"] {
        gives!(set(NO_FOLLOW, outside, THEN, LATER).await, Err(ErrorCode::NotPermitted));
    }
    gives!(set(FOLLOW, "out", THEN, LATER).await, Err(ErrorCode::NotPermitted));

    let before = times(&a).await;
    ok!(set(NO_FOLLOW, "a.txt", THEN, LATER).await);
    same!(times(&a).await, (THEN, LATER));
    ok!(set(NO_FOLLOW, "a.txt", before.0, before.1).await);
    same!(times(&a).await, before);
    ok!(a.set_times(NewTimestamp::Timestamp(THEN), NewTimestamp::Timestamp(LATER)).await);
    same!(times(&a).await, (THEN, LATER));
    ok!(a.set_times(NewTimestamp::Timestamp(before.0), NewTimestamp::Timestamp(before.1)).await);
    same!(times(&a).await, before);
}
