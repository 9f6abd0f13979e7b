//! What is written to stdout is out at once: somebody may wait for it before they write to stdin.
use std::future::IntoFuture;

use checks::{check, ok, same};
use futures::join;
use wasip3::cli::{stdin, stdout};
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

pub async fn run() {
    let (mut writer, reader) = wit_stream::new();
    let talk = async {
        check!(writer.write_all(b"your turn".to_vec()).await.is_empty());
        let (mut input, done) = stdin::read_via_stream();
        let (result, answer) = input.read(Vec::with_capacity(1)).await;
        same!(result, StreamResult::Complete(1));
        same!(answer, b"!");
        drop(input);
        ok!(done.await);
        drop(writer); // not before
    };
    let (done, ()) = join!(stdout::write_via_stream(reader).into_future(), talk);
    ok!(done);
}
