//! A datagram comes as it was sent, with the address of who sent it; to a socket without an address, none comes.
use checks::{gives, ok, same};
use futures::join;
use wasip3::sockets::types::{ErrorCode, UdpSocket};

use crate::places::{loopback, FAMILIES};

pub async fn run() {
    for family in FAMILIES {
        let server = ok!(UdpSocket::create(family));
        gives!(server.receive().await, Err(ErrorCode::InvalidState));
        ok!(server.bind(loopback(family, 0)));
        let client = ok!(UdpSocket::create(family));
        ok!(client.connect(ok!(server.get_local_address())));
        let (received, sent) = join!(server.receive(), client.send(b"data".to_vec(), None));
        ok!(sent);
        same!(ok!(received), (b"data", ok!(client.get_local_address())));
    }
}
