//! A socket is bound once, to an address of its family that is this machine's own; without a port, to a free one;
//! to all of them, too.
use checks::{check, gives, ok, same};
use wasip3::sockets::types::{ErrorCode, UdpSocket};

use crate::places::{any, foreign, host, loopback, mapped, of_nobody, port, Ipv6, FAMILIES};

pub async fn run() {
    for family in FAMILIES {
        let socket = || ok!(UdpSocket::create(family));
        gives!(socket().bind(foreign(family, 0)), Err(ErrorCode::InvalidArgument));
        for address in of_nobody(family) {
            gives!(socket().bind(address), Err(ErrorCode::AddressNotBindable));
        }
        for address in [loopback(family, 0), any(family, 0)] {
            let one = socket();
            ok!(one.bind(address));
            let bound = ok!(one.get_local_address());
            same!(host(&bound), host(&address));
            check!(port(&bound) != 0);
            gives!(one.bind(address), Err(ErrorCode::InvalidState));
        }
    }
    gives!(ok!(UdpSocket::create(Ipv6)).bind(mapped(0)), Err(ErrorCode::InvalidArgument));
}
