//! A stream that is sent arrives whole, and then ends, while the connection's other half goes on. Without a
//! connection, none is sent.
use checks::{gives, ok, same, some};
use futures::join;
use wasip3::sockets::types::{ErrorCode, IpAddressFamily, TcpSocket};
use wasip3::wit_stream;

use crate::places::{loopback, FAMILIES};
use crate::streams::put;

const TEXT: &[u8] = b"ten bytes.";

async fn put(socket: &TcpSocket) {
    put!(TEXT, |stream| socket.send(stream));
}

async fn get(socket: &TcpSocket) {
    let (stream, done) = socket.receive();
    same!(stream.collect().await, TEXT);
    ok!(done.await);
}

async fn both_ways(family: IpAddressFamily) {
    let server = ok!(TcpSocket::create(family));
    ok!(server.bind(loopback(family, 0)));
    let mut connections = ok!(server.listen());
    let address = ok!(server.get_local_address());
    let client = ok!(TcpSocket::create(family));
    let serve = async {
        let connection = some!(connections.next().await);
        join!(put(&connection), get(&connection));
    };
    let ask = async {
        ok!(client.connect(address).await);
        get(&client).await;
        put(&client).await; // the other side has ended, and still reads
    };
    join!(serve, ask);
}

pub async fn run() {
    for family in FAMILIES {
        let (_writer, reader) = wit_stream::new();
        gives!(ok!(TcpSocket::create(family)).send(reader).await, Err(ErrorCode::InvalidState));
        both_ways(family).await;
    }
}
