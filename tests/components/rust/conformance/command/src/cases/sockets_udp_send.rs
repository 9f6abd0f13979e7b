//! A datagram goes to the address that is named with it, or to which the socket is connected, and may be only so
//! long. A socket gets an address with the first.
use checks::{check, gives, ok};
use wasip3::sockets::types::{ErrorCode, UdpSocket};

use crate::places::{any, foreign, loopback, FAMILIES, PORT};

pub async fn run() {
    for family in FAMILIES {
        let socket = || ok!(UdpSocket::create(family));
        let (byte, here) = (vec![0], loopback(family, PORT));
        gives!(socket().send(byte.clone(), Some(foreign(family, PORT))).await, Err(ErrorCode::InvalidArgument));
        gives!(socket().send(byte.clone(), None).await, Err(ErrorCode::InvalidArgument));
        gives!(socket().send(vec![0; 65536], Some(here)).await, Err(ErrorCode::DatagramTooLarge));
        // The interface has these refused; the tests let systems send them somewhere.
        for nowhere in [any(family, PORT), loopback(family, 0)] {
            gives!(socket().send(byte.clone(), Some(nowhere)).await, Ok(()) | Err(ErrorCode::InvalidArgument));
        }

        let one = socket();
        ok!(one.send(byte.clone(), Some(here)).await);
        ok!(one.get_local_address());
        check!(one.get_remote_address().is_err());

        let connected = socket();
        ok!(connected.connect(here));
        ok!(connected.send(byte.clone(), None).await);
        let connected = socket();
        ok!(connected.connect(here));
        ok!(connected.send(byte, Some(here)).await);
    }
}
