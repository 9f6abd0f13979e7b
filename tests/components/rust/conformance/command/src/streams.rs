//! What guests write.
use std::future::IntoFuture;

use futures::join;
use wasip3::wit_bindgen::{FutureReader, StreamReader};
use wasip3::wit_stream;

/// Writes it all to a stream that somebody takes, and ends the stream.
///
/// Returns what they say of it, and what they did not take.
pub async fn give<E: 'static>(
    data: &[u8],
    take: impl FnOnce(StreamReader<u8>) -> FutureReader<Result<(), E>>,
) -> (Result<(), E>, Vec<u8>) {
    let (mut writer, reader) = wit_stream::new();
    let write = async {
        let rest = writer.write_all(data.to_vec()).await;
        drop(writer);
        rest
    };
    join!(take(reader).into_future(), write)
}

/// Gives what must be taken.
macro_rules! put {
    ($data:expr, $take:expr) => {{
        let (done, rest) = $crate::streams::give($data, $take).await;
        checks::ok!(done);
        checks::same!(rest.len(), 0);
    }};
}
pub(crate) use put;
