//! A file is read from any offset, at its end and past it, too, where there is nothing; is written to at any, and
//! appended to. What is written is seen at once, by others, too.
use std::future::IntoFuture;

use checks::{check, gives, ok, same};
use futures::join;
use wasip3::filesystem::types::{Descriptor, ErrorCode};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_stream;

use crate::files::{root, size};

type Done = FutureReader<Result<(), ErrorCode>>;

/// So many bytes, or what there is.
async fn read(file: &Descriptor, count: usize, offset: u64) -> Result<Vec<u8>, ErrorCode> {
    let (mut stream, done) = file.read_via_stream(offset);
    let mut found = Vec::with_capacity(count);
    loop {
        let before = found.len();
        let (result, more) = stream.read(found).await;
        found = more;
        match result {
            StreamResult::Complete(read) => same!(found.len(), before + read),
            other => {
                same!(other, StreamResult::Dropped);
                break;
            }
        }
        check!(found.len() <= count);
        if found.len() == count {
            break;
        }
    }
    drop(stream);
    done.await.map(|()| found)
}

async fn rest(file: &Descriptor, offset: u64) -> Vec<u8> {
    let (stream, done) = file.read_via_stream(offset);
    let found = stream.collect().await;
    ok!(done.await);
    found
}

/// Part by part, as many as the other side takes at a time.
async fn put(text: &str, begin: impl FnOnce(StreamReader<u8>) -> Done) {
    let (mut writer, reader) = wit_stream::new();
    let done = begin(reader);
    let write = async {
        let (mut result, mut left) = writer.write(text.as_bytes().to_vec()).await;
        let mut written = 0;
        loop {
            match result {
                StreamResult::Complete(count) => written += count,
                other => same!(other, StreamResult::Complete(left.remaining())),
            }
            same!(left.remaining(), text.len() - written);
            if left.remaining() == 0 {
                break;
            }
            (result, left) = writer.write_buf(left).await;
        }
        drop(writer);
    };
    let (done, ()) = join!(done.into_future(), write);
    ok!(done);
}

async fn write(file: &Descriptor, offset: u64, text: &str) {
    put(text, |stream| file.write_via_stream(stream, offset)).await;
}

async fn append(file: &Descriptor, text: &str) {
    let before = size(file).await;
    put(text, |stream| file.append_via_stream(stream)).await;
    same!(size(file).await, before + text.len() as u64);
}

pub async fn run() {
    let dir = root();
    let file = dir.create("one").await;
    write(&file, 0, "abcdef\n").await;
    for offset in [0, 1, 6, 7, 17] {
        ok!(read(&file, 0, offset).await);
    }
    for (offset, one, all) in [(0, "a", "abcdef\n"), (1, "b", "bcdef\n"), (6, "\n", "\n"), (7, "", ""), (17, "", "")] {
        same!(ok!(read(&file, 1, offset).await), one.as_bytes());
        same!(rest(&file, offset).await, all.as_bytes());
    }
    gives!(read(&file, 1, u64::MAX).await, Err(ErrorCode::Invalid));
    ok!(file.sync_data().await);
    ok!(file.sync().await);

    let other = dir.create("two").await;
    same!(rest(&other, 0).await, b"");
    write(&other, 0, "a sentence").await;
    same!(rest(&other, 0).await, b"a sentence");
    write(&other, 0, "A word").await;
    same!(rest(&other, 0).await, b"A wordence");
    append(&other, " and more").await;
    same!(rest(&other, 0).await, b"A wordence and more");
    ok!(other.sync_data().await);
    same!(rest(&ok!(dir.to_read("two").await), 0).await, b"A wordence and more");
    ok!(other.sync().await);

    drop(file);
    drop(other);
    ok!(dir.unlink("one").await);
    ok!(dir.unlink("two").await);
}
