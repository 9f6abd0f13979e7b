//! A socket connects to an address and a port of its family that somebody may have, gets a port of its own with
//! that, and may connect again, elsewhere when it has disconnected, which it cannot before. An address is bound
//! to once.
use checks::{check, gives, ok, same};
use wasip3::sockets::types::{ErrorCode, UdpSocket};

use crate::places::{any, foreign, host, loopback, mapped, port, Ipv6, FAMILIES, PORT};

pub async fn run() {
    for family in FAMILIES {
        let socket = || ok!(UdpSocket::create(family));
        for address in [foreign(family, PORT), any(family, PORT), loopback(family, 0)] {
            gives!(socket().connect(address), Err(ErrorCode::InvalidArgument));
        }

        let one = socket();
        let (here, there) = (loopback(family, PORT), loopback(family, PORT + 1));
        check!(one.get_local_address().is_err());
        gives!(one.disconnect(), Err(ErrorCode::InvalidState));
        for _ in 0..2 {
            ok!(one.connect(here));
            same!(ok!(one.get_remote_address()), here);
        }
        let own = ok!(one.get_local_address());
        same!(host(&own), host(&here));
        check!(port(&own) != PORT);
        ok!(one.disconnect());
        ok!(one.connect(there));
        same!(ok!(one.get_remote_address()), there);

        let bound = socket();
        ok!(bound.bind(loopback(family, 0)));
        gives!(socket().bind(ok!(bound.get_local_address())), Err(ErrorCode::AddressInUse));
    }
    gives!(ok!(UdpSocket::create(Ipv6)).connect(mapped(PORT)), Err(ErrorCode::InvalidArgument));
}
