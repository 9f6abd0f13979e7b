//! A socket connects once, to an address and a port of its family that somebody may have, from one that it was
//! bound to, too. Where nobody listens, it is refused.
use checks::{gives, ok, some};
use futures::join;
use wasip3::sockets::types::{ErrorCode, IpAddressFamily, TcpSocket};

use crate::places::{any, foreign, loopback, mapped, of_many, Ipv6, FAMILIES, PORT};

async fn to_no_address(family: IpAddressFamily) {
    let places = [foreign(family, PORT), any(family, PORT), loopback(family, 0)];
    for address in places.into_iter().chain(of_many(family, PORT)) {
        gives!(ok!(TcpSocket::create(family)).connect(address).await, Err(ErrorCode::InvalidArgument));
    }
}

async fn states(family: IpAddressFamily) {
    let bound = || {
        let socket = ok!(TcpSocket::create(family));
        ok!(socket.bind(loopback(family, 0)));
        socket
    };
    let address = ok!(bound().get_local_address()); // where nobody is any more
    gives!(ok!(TcpSocket::create(family)).connect(address).await, Err(ErrorCode::ConnectionRefused));

    let server = bound();
    let mut connections = ok!(server.listen());
    let address = ok!(server.get_local_address());
    gives!(server.connect(loopback(family, PORT)).await, Err(ErrorCode::InvalidState));
    gives!(ok!(TcpSocket::create(family)).bind(address), Err(ErrorCode::AddressInUse));

    for client in [ok!(TcpSocket::create(family)), bound()] {
        let (connected, accepted) = join!(client.connect(address), connections.next());
        ok!(connected);
        drop(some!(accepted));
        gives!(client.connect(address).await, Err(ErrorCode::InvalidState));
    }
}

pub async fn run() {
    for family in FAMILIES {
        to_no_address(family).await;
        states(family).await;
    }
    gives!(ok!(TcpSocket::create(Ipv6)).connect(mapped(PORT)).await, Err(ErrorCode::InvalidArgument));
}
