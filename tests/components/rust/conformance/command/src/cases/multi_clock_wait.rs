//! Of many that wait at a time, for what is over and what is to come, none is ready early; when one is, those
//! before it are.
use std::future::Future;
use std::task::{Context, Poll, Waker};

use checks::{check, same};
use wasip3::clocks::monotonic_clock::{now, wait_until, Mark};

/// In microseconds from now, in no order.
const TIMES: [i64; 20] = [
    7300, 400, 5900, 2100, -900, 8800, 3200, 4700, 5000, 8100, 2600, 6100, 5500, -4100, -300, 6600, 9900, 2800, 1700,
    -3500,
];

pub async fn run() {
    let mut context = Context::from_waker(Waker::noop());
    let start = now();
    let times: Vec<Mark> = TIMES.iter().map(|it| start.saturating_add_signed(it * 1000)).collect();
    let mut waits: Vec<_> = times.iter().map(|it| Some(Box::pin(wait_until(*it)))).collect();
    for (index, time) in times.iter().enumerate() {
        let Some(wait) = waits[index].take() else { continue };
        wait.await;
        check!(now() >= *time);
        for (other, wait) in waits.iter_mut().enumerate() {
            if let (Some(it), true) = (wait.as_mut(), times[other] <= *time) {
                same!(it.as_mut().poll(&mut context), Poll::Ready(()));
                *wait = None;
            }
        }
    }
    check!(waits.iter().all(Option::is_none));
}
