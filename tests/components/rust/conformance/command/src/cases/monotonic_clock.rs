//! The clock has a resolution and goes on, not by a day at once. Who waits, waits so long; for what is over, not
//! at all.
use checks::check;
use wasip3::clocks::monotonic_clock::{get_resolution, now, wait_for, wait_until, Mark};

const MILLISECOND: u64 = 1_000_000;
const DAY: u64 = 86_400_000 * MILLISECOND;

fn since(start: Mark) -> u64 {
    let end = now();
    check!(end >= start);
    check!(end - start < DAY);
    end - start
}

pub async fn run() {
    let start = now();
    wait_for(MILLISECOND).await;
    check!(since(start) >= MILLISECOND);
    wait_for(0).await;

    wait_until(now()).await;
    wait_until(0).await;
    let start = now();
    wait_until(start + MILLISECOND).await;
    check!(since(start) >= MILLISECOND);

    check!(get_resolution() > 0);
}
