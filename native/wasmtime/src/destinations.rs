//! The addresses that guests may connect to: a name is looked up once, and what is connected to is what was checked.
//! ``shimd/wasi/destinations.py`` has the same for the portable host.

use std::error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// What is blocked; nothing, as a rule.
#[derive(Default)]
pub struct Destinations {
    networks: Vec<Network>,
    /// All that is not for everybody, loopback among it.
    private: bool,
}

/// The first bits of an address.
#[derive(Clone, Copy)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// Of ``ADDRESS/BITS``; ``None``: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, bits) = text.split_once('/')?;
        Some(Self { first: first.parse().ok()?, bits: bits.parse().ok()? })
    }

    pub fn has(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                same(u32::from(first).into(), u32::from(address).into(), 32, self.bits)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => same(first.into(), address.into(), 128, self.bits),
            _ => false,
        }
    }
}

fn same(one: u128, other: u128, size: u32, bits: u32) -> bool {
    (one ^ other).checked_shr(size.saturating_sub(bits)).unwrap_or(0) == 0
}

/// What IANA's registries of special addresses have as not globally reachable, and multicast; and what is, within it.
const NOT_GLOBAL: [&str; 33] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "::/96",
    "::ffff:0:0:0/96",
];
const GLOBAL: [&str; 8] = [
    "192.0.0.9/32",
    "192.0.0.10/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:20::/28",
    "2001:30::/28",
];
/// Where an address of IPv6 has one of IPv4 in its last bits: mapped, compatible (RFC 4291), NAT64, also with a prefix of
/// one's own (RFC 6052, RFC 8215), and translated (RFC 2765).
const LAST_BITS: [&str; 5] = ["::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96"];

fn within(networks: &[&str], address: IpAddr) -> bool {
    networks.iter().filter_map(|text| Network::parse(text)).any(|network| network.has(address))
}

impl Destinations {
    pub fn new(networks: Vec<Network>, private: bool) -> Self {
        Self { networks, private }
    }

    fn is_any(&self) -> bool {
        self.private || !self.networks.is_empty()
    }

    pub fn blocks(&self, address: IpAddr) -> bool {
        if self.private && within(&NOT_GLOBAL, address) && !within(&GLOBAL, address) {
            return true;
        }
        self.networks.iter().any(|network| network.has(address))
            || behind(address).into_iter().flatten().any(|address| self.blocks(address))
    }

    /// Whether a host is an address that is blocked, which takes no look-up.
    pub fn refuses(&self, host: &str) -> bool {
        self.is_any() && host.trim_matches(['[', ']']).parse().is_ok_and(|address| self.blocks(address))
    }
}

/// Where an address leads to, or may: that of none is loopback's, one of IPv6 may have one of IPv4.
fn behind(address: IpAddr) -> [Option<IpAddr>; 3] {
    let none = match address {
        IpAddr::V4(it) => it.is_unspecified().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(it) => it.is_unspecified().then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    let IpAddr::V6(six) = address else { return [none, None, None] };
    let number = u128::from(six);
    let four = |bits: u128| IpAddr::V4(Ipv4Addr::from(bits as u32));
    let to_four = six.segments()[0] == 0x2002;
    [none, within(&LAST_BITS, address).then(|| four(number)), to_four.then(|| four(number >> 80))]
}

/// All addresses of a host are blocked.
#[derive(Debug)]
pub struct Prohibited;

impl fmt::Display for Prohibited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is in a network that the runtime configuration blocks")
    }
}

impl error::Error for Prohibited {}

/// Looks names up, and leaves out what is blocked.
#[derive(Clone)]
pub struct Checked {
    resolver: GaiResolver,
    destinations: Arc<Destinations>,
}

impl Checked {
    pub fn new(destinations: Arc<Destinations>) -> Self {
        Self { resolver: GaiResolver::new(), destinations }
    }
}

impl Service<Name> for Checked {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (looking, destinations) = (self.resolver.call(name), self.destinations.clone());
        Box::pin(async move {
            let found: Vec<_> = looking.await?.collect();
            if !destinations.is_any() {
                return Ok(found.into_iter());
            }
            let allowed: Vec<_> = found.into_iter().filter(|it| !destinations.blocks(it.ip())).collect();
            if allowed.is_empty() { Err(io::Error::other(Prohibited)) } else { Ok(allowed.into_iter()) }
        })
    }
}
