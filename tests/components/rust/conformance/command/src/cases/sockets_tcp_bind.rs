//! A socket is bound once, to an address of its family that is this machine's own; without a port, to a free one.
//! Where one listens, no other is bound; where connections only end, it is.
use checks::{check, gives, ok, same, some};
use futures::join;
use wasip3::sockets::types::{ErrorCode, IpAddressFamily, TcpSocket};

use crate::places::{foreign, host, loopback, mapped, of_many, of_nobody, port, Ipv6, FAMILIES};
use crate::streams::put;

fn addresses(family: IpAddressFamily) {
    let socket = || ok!(TcpSocket::create(family));
    gives!(socket().bind(foreign(family, 0)), Err(ErrorCode::InvalidArgument));
    for address in of_many(family, 0) {
        gives!(socket().bind(address), Err(ErrorCode::InvalidArgument));
    }
    for address in of_nobody(family) {
        gives!(socket().bind(address), Err(ErrorCode::AddressNotBindable));
    }

    let one = socket();
    ok!(one.bind(loopback(family, 0)));
    let bound = ok!(one.get_local_address());
    same!(host(&bound), host(&loopback(family, 0)));
    check!(port(&bound) != 0);
    gives!(one.bind(loopback(family, 0)), Err(ErrorCode::InvalidState));

    let _connections = ok!(one.listen());
    gives!(socket().bind(bound), Err(ErrorCode::AddressInUse));
}

async fn again(family: IpAddressFamily) {
    let client = ok!(TcpSocket::create(family));
    let address = {
        let server = ok!(TcpSocket::create(family));
        ok!(server.bind(loopback(family, 0)));
        let address = ok!(server.get_local_address());
        let mut connections = ok!(server.listen());
        let serve = async {
            let connection = some!(connections.next().await);
            put!(b".", |stream| connection.send(stream));
        };
        let (connected, ()) = join!(client.connect(address), serve);
        ok!(connected);
        address
    };
    let next = ok!(TcpSocket::create(family));
    ok!(next.bind(address));
    drop(ok!(next.listen()));
}

pub async fn run() {
    for family in FAMILIES {
        addresses(family);
        again(family).await;
    }
    gives!(ok!(TcpSocket::create(Ipv6)).bind(mapped(0)), Err(ErrorCode::InvalidArgument));
}
