//! Random bytes and numbers, of both kinds, are as many as were asked for, and others each time. The seed stays
//! the same.
use checks::{check, same};
use wasip3::random::insecure::{get_insecure_random_bytes, get_insecure_random_u64};
use wasip3::random::insecure_seed::get_insecure_seed;
use wasip3::random::random::{get_random_bytes, get_random_u64};

pub async fn run() {
    same!(get_random_bytes(100).len(), 100);
    check!(get_random_bytes(10) != get_random_bytes(10));
    check!(get_random_u64() != get_random_u64());

    same!(get_insecure_random_bytes(100).len(), 100);
    check!(get_insecure_random_bytes(100) != get_insecure_random_bytes(100));
    check!(get_insecure_random_u64() != get_insecure_random_u64());

    same!(get_insecure_seed(), get_insecure_seed());
}
