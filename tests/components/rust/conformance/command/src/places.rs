//! Addresses of sockets.
use wasip3::sockets::types::{
    IpAddressFamily, IpSocketAddress, Ipv4Address, Ipv4SocketAddress, Ipv6Address, Ipv6SocketAddress,
};

pub use IpAddressFamily::{Ipv4, Ipv6};

pub const FAMILIES: [IpAddressFamily; 2] = [Ipv4, Ipv6];
/// Where nobody listens.
pub const PORT: u16 = 42;

pub fn v4(address: Ipv4Address, port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

pub fn v6(address: Ipv6Address, port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
}

pub fn loopback(family: IpAddressFamily, port: u16) -> IpSocketAddress {
    match family {
        Ipv4 => v4((127, 0, 0, 1), port),
        Ipv6 => v6((0, 0, 0, 0, 0, 0, 0, 1), port),
    }
}

/// The other family's.
pub fn foreign(family: IpAddressFamily, port: u16) -> IpSocketAddress {
    loopback(if family == Ipv4 { Ipv6 } else { Ipv4 }, port)
}

pub fn any(family: IpAddressFamily, port: u16) -> IpSocketAddress {
    match family {
        Ipv4 => v4((0, 0, 0, 0), port),
        Ipv6 => v6((0, 0, 0, 0, 0, 0, 0, 0), port),
    }
}

/// 127.0.0.1, as IPv6 may write it.
pub fn mapped(port: u16) -> IpSocketAddress {
    v6((0, 0, 0, 0, 0, 0xffff, 0x7f00, 1), port)
}

/// Each multicast network's first address, and the broadcast one.
pub fn of_many(family: IpAddressFamily, port: u16) -> Vec<IpSocketAddress> {
    match family {
        Ipv4 => {
            let multicast = (224..=239).map(|first| (first, 0, 0, 1));
            multicast.chain([(255, 255, 255, 255)]).map(|address| v4(address, port)).collect()
        }
        Ipv6 => (0xff00..=0xffff).map(|first| v6((first, 0, 0, 0, 0, 0, 0, 1), port)).collect(),
    }
}

/// Those that are reserved for documentation, so that no machine has them.
pub fn of_nobody(family: IpAddressFamily) -> Vec<IpSocketAddress> {
    match family {
        Ipv4 => [(192, 0, 2, 1), (198, 51, 100, 1), (203, 0, 113, 1)].map(|address| v4(address, 0)).to_vec(),
        Ipv6 => vec![v6((0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 0)],
    }
}

pub fn host(address: &IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(it) => format!("{:?}", it.address),
        IpSocketAddress::Ipv6(it) => format!("{:?}", it.address),
    }
}

pub fn port(address: &IpSocketAddress) -> u16 {
    match address {
        IpSocketAddress::Ipv4(it) => it.port,
        IpSocketAddress::Ipv6(it) => it.port,
    }
}
