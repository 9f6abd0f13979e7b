//! A command that uses a shelf of books, an interface that its host does not have: what it does, its first argument says.
use std::env::args;
use std::time::Instant;

use acme::things::shelf::{self, Book, Entry, Marks, Mood, Place, Refusal};
use wasi::config::store;

wit_bindgen::generate!({ path: "../wit", world: "measured", generate_all });

fn main() {
    let words: Vec<String> = args().collect();
    let size = |place: usize| words.get(place).and_then(|word| word.parse().ok()).unwrap_or(1);
    match words[1].as_str() {
        "values" => values(),
        "books" => books(),
        "greet" => println!("{}", shelf::greet(&words[2])),
        "take" => println!("{:?}", shelf::take(&words[2]).map(|book| book.title())),
        "fail" => shelf::fail(),
        "end" => shelf::end(),
        "wait" => shelf::wait(),
        "settings" => repeat(size(2), || assert_eq!(store::get("GREETING").unwrap().unwrap(), "hello, you")),
        "greetings" => repeat(size(2), || assert_eq!(shelf::greet("you"), "hello, you")),
        "blobs" => {
            let data = vec![7; size(3)];
            repeat(size(2), || assert_eq!(shelf::back(&data).len(), data.len()))
        }
        other => panic!("{other}?"),
    }
}

/// How many calls a second.
fn repeat(times: usize, call: impl Fn()) {
    let begun = Instant::now();
    (0..times).for_each(|_| call());
    println!("{:.0}", times as f64 / begun.elapsed().as_secs_f64());
}

fn values() {
    let entry =
        |title: &str, pages, at, mood, marks| Entry { title: title.into(), pages, at, mood, marks, weight: 0.5 };
    let entries = [
        entry("", None, Place::Nowhere, Mood::Calm, Marks::empty()),
        entry("Ulysses", Some(65535), Place::Room("κίτρινο".into()), Mood::Wild, Marks::all()),
        entry("\0", Some(0), Place::Row((u32::MAX, '🦀')), Mood::Wild, Marks::LENT | Marks::TORN),
    ];
    let back = shelf::same(&entries);
    assert_eq!(format!("{entries:?}"), format!("{back:?}"));
    assert!(shelf::same(&[]).is_empty());
    for size in [0, 1, 255, 65536, 1 << 20] {
        let data: Vec<u8> = (0..size).map(|it| it as u8).collect();
        assert_eq!(shelf::back(&data), data);
    }
    println!("the same");
}

fn books() {
    let (emma, ulysses) = (Book::new("Emma"), Book::new("Ulysses"));
    assert_eq!(emma.write(b"short").unwrap(), 5);
    assert_eq!(ulysses.write(&[b'x'; 70000]).unwrap(), 70000);
    assert_eq!(shelf::longer(&emma, &ulysses).as_deref(), Some("Ulysses"));
    assert_eq!(shelf::longer(&emma, &emma), None);
    shelf::put(emma, &Place::Room("hall".into())).unwrap();
    assert!(matches!(shelf::put(Book::new("Third"), &Place::Nowhere), Err(Refusal::Full)));
    assert!(matches!(shelf::take("Dune"), Err(Refusal::Unknown(title)) if title == "Dune"));
    let emma = shelf::take("Emma").unwrap();
    assert_eq!((emma.title(), emma.text()), ("Emma".into(), b"short".to_vec()));
    drop(emma);
    drop(ulysses);
    println!("lost {}", Book::lost());
}
