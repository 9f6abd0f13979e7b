//! The time has less than a second of nanoseconds, and a resolution, which is less than a second, too.
use checks::check;
use wasip3::clocks::system_clock::{get_resolution, now};

const SECOND: u32 = 1_000_000_000;

pub async fn run() {
    check!(now().nanoseconds < SECOND);
    check!(get_resolution() > 0);
    check!((get_resolution() as u32) < SECOND);
}
