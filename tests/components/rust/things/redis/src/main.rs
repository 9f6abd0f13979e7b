//! A command that uses Redis as Spin gives it: at an address, so many times.
use std::env::args;
use std::time::Instant;

use fermyon::spin::redis::{Connection, Error, RedisParameter, RedisResult};

wit_bindgen::generate!({ path: "../wit", world: "stored", generate_all });

fn main() {
    let words: Vec<String> = args().collect();
    let times: u32 = words[2].parse().expect("a number");
    assert!(matches!(Connection::open("nowhere"), Err(Error::InvalidAddress)));
    let redis = Connection::open(&words[1]).unwrap();
    redis.set("key", b"value").unwrap();
    assert_eq!(redis.get("nothing").unwrap(), None);
    assert!(matches!(redis.incr("key"), Err(Error::TypeError)));
    let both = [RedisParameter::Binary(b"key".to_vec()), RedisParameter::Binary(b"nothing".to_vec())];
    let found = redis.execute("MGET", &both).unwrap();
    assert!(matches!(&found[..], [RedisResult::Binary(value), RedisResult::Nil] if value == b"value"));
    let begun = Instant::now();
    for _ in 0..times {
        assert_eq!(redis.get("key").unwrap().unwrap(), b"value");
    }
    println!("{:.0}", f64::from(times) / begun.elapsed().as_secs_f64());
}
