//! A connection is read by one stream; without a connection, there is none. Who drops it unread has no more to
//! come: to write there fails.
use checks::{check, gives, ok, some};
use futures::join;
use wasip3::sockets::types::{ErrorCode, IpAddressFamily, TcpSocket};

use crate::places::{loopback, FAMILIES};
use crate::streams::{give, put};

/// Both ends of a connection.
async fn pair(family: IpAddressFamily) -> (TcpSocket, TcpSocket) {
    let server = ok!(TcpSocket::create(family));
    ok!(server.bind(loopback(family, 0)));
    let mut connections = ok!(server.listen());
    let client = ok!(TcpSocket::create(family));
    let (connected, accepted) = join!(client.connect(ok!(server.get_local_address())), connections.next());
    ok!(connected);
    (some!(accepted), client)
}

pub async fn run() {
    for family in FAMILIES {
        let (_stream, done) = ok!(TcpSocket::create(family)).receive();
        gives!(done.await, Err(ErrorCode::InvalidState));

        let (connection, _client) = pair(family).await;
        let (first, second) = (connection.receive(), connection.receive());
        drop(first.0);
        ok!(first.1.await);
        gives!(second.1.await, Err(ErrorCode::InvalidState));
    }
    for family in FAMILIES {
        let (connection, client) = pair(family).await;
        put!(b".", |stream| connection.send(stream));
        let (stream, done) = client.receive();
        drop(stream);
        check!(give(b".", |stream| connection.send(stream)).await.0.is_err());
        ok!(done.await);
    }
}
