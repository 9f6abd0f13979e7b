//! A socket listens once, and gets a port if it has none. Its connections have what was set for it.
use checks::{check, gives, ok, same, some};
use futures::join;
use wasip3::sockets::types::{ErrorCode, IpAddressFamily, TcpSocket};

use crate::places::{loopback, FAMILIES};

/// What a connection gets from the socket that took it.
fn settings(socket: &TcpSocket) -> String {
    let alive = (
        ok!(socket.get_keep_alive_enabled()),
        ok!(socket.get_keep_alive_idle_time()),
        ok!(socket.get_keep_alive_interval()),
        ok!(socket.get_keep_alive_count()),
    );
    format!("{:?}", (socket.get_address_family(), alive, ok!(socket.get_hop_limit())))
}

async fn listening(family: IpAddressFamily) {
    let unbound = ok!(TcpSocket::create(family));
    check!(unbound.get_local_address().is_err());
    let _nobody = ok!(unbound.listen());
    ok!(unbound.get_local_address());

    let server = ok!(TcpSocket::create(family));
    ok!(server.bind(loopback(family, 0)));
    let mut connections = ok!(server.listen());
    gives!(server.listen(), Err(ErrorCode::InvalidState));

    let client = ok!(TcpSocket::create(family));
    let (connected, accepted) = join!(client.connect(ok!(server.get_local_address())), connections.next());
    ok!(connected);
    same!(settings(&some!(accepted)), settings(&server));
}

pub async fn run() {
    for family in FAMILIES {
        listening(family).await;
    }
}
