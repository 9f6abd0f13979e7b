//! A directory's entries are what is in it, with their types, and nothing else.
use checks::{ok, same};
use wasip3::filesystem::types::{DescriptorType, DirectoryEntry};

use crate::files::{link_out, root};

fn entry(name: &str, type_: DescriptorType) -> DirectoryEntry {
    DirectoryEntry { type_, name: name.into() }
}

pub async fn run() {
    let dir = root();
    link_out(&dir, "out").await;
    let (stream, done) = dir.read_directory();
    let mut found = stream.collect().await;
    ok!(done.await);
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let expected = [
        entry("a.txt", DescriptorType::RegularFile),
        entry("b.txt", DescriptorType::RegularFile),
        entry("out", DescriptorType::SymbolicLink),
    ];
    same!(found, expected);
}
