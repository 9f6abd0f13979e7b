//! The hosts that a component may connect to, as ``shimd/apps/spin/allowed.py`` has parsed them.

use std::net::IpAddr;

use serde::Deserialize;

use crate::destinations::Network;

/// Below it each component has a name.
pub const CHAINED: &str = ".spin.internal";
/// The application itself; the second for libraries that will have a dot in a host.
pub const SELF: [&str; 2] = ["self", "self.alt"];

#[derive(Deserialize)]
pub struct AllowedHost {
    scheme: String,
    /// A name or an address, ``*``, or ``*.`` and a domain; empty for a network.
    host: String,
    /// From the first to before the last; ``None``: any.
    ports: Option<(u32, u32)>,
    network: Option<String>,
}

impl AllowedHost {
    fn matches(&self, scheme: &str, host: &str, port: u16) -> bool {
        let ports = self.ports.is_none_or(|(first, end)| (first..end).contains(&port.into()));
        self.has_scheme(&[scheme]) && ports && self.has(host.trim_matches(['[', ']']))
    }

    /// A network has addresses, and no names: where those lead may change.
    fn has(&self, host: &str) -> bool {
        if let Some(network) = &self.network {
            let address = host.parse::<IpAddr>();
            return address.is_ok_and(|address| Network::parse(network).is_some_and(|it| it.has(address)));
        }
        let below = || self.host.strip_prefix('*').is_some_and(|it| it.starts_with('.') && host.ends_with(it));
        self.host == "*" || self.host == host || below()
    }

    pub fn has_scheme(&self, schemes: &[&str]) -> bool {
        self.scheme == "*" || schemes.contains(&self.scheme.as_str())
    }
}

/// Whether a component may send requests to a host, which is in lower case.
pub fn allows(hosts: &[AllowedHost], scheme: &str, host: &str, port: u16) -> bool {
    !SELF.contains(&host) && hosts.iter().any(|it| it.matches(scheme, host, port))
}

/// Whether it may send them to the application itself, whatever its address.
pub fn allows_self(hosts: &[AllowedHost]) -> bool {
    let is_self = |it: &AllowedHost| it.host == "*" || SELF.contains(&it.host.as_str());
    hosts.iter().any(|it| is_self(it) && it.has_scheme(&["http", "https"]))
}
