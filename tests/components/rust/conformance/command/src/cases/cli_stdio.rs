//! Stdin may be dropped unread. A byte that is written to stdout or stderr is taken whole, and the stream's end
//! is no error.
use std::future::IntoFuture;

use checks::{ok, same};
use futures::join;
use wasip3::cli::{stderr, stdin, stdout};
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

macro_rules! put_byte {
    ($output:ident) => {{
        let (mut writer, reader) = wit_stream::new();
        let write = async {
            let (result, rest) = writer.write(vec![b'.']).await;
            same!(result, StreamResult::Complete(1));
            same!(rest.remaining(), 0);
            drop(writer);
        };
        let (done, ()) = join!($output::write_via_stream(reader).into_future(), write);
        ok!(done);
    }};
}

pub async fn run() {
    let (input, done) = stdin::read_via_stream();
    drop(input);
    ok!(done.await);
    put_byte!(stdout);
    put_byte!(stderr);
}
