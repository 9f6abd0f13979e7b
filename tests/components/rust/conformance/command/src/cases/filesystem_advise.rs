//! Any advice is taken about any part of a file, past its end, too; about directories, none.
use checks::{gives, ok};
use wasip3::filesystem::types::{Advice, ErrorCode};

use crate::files::{root, size};

const PAGE: u64 = 4096;

pub async fn run() {
    let dir = root();
    gives!(dir.advise(0, 0, Advice::Normal).await, Err(ErrorCode::BadDescriptor));

    let file = ok!(dir.to_read("a.txt").await);
    let end = size(&file).await;
    let all =
        [Advice::Normal, Advice::Sequential, Advice::Random, Advice::WillNeed, Advice::DontNeed, Advice::NoReuse];
    for advice in all {
        for offset in [0, end.saturating_sub(PAGE), end, end + PAGE] {
            for length in [0, 10, PAGE, end, end + PAGE] {
                ok!(file.advise(offset, length, advice).await);
            }
        }
    }
}
