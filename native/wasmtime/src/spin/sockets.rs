//! wasi:sockets under the rules that hold for requests: what a component may connect to, and what the operator blocks.

use std::net::SocketAddr;
use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::allowed::{AllowedHost, allows};
use crate::destinations::Destinations;

/// Connections by TCP, and datagrams: nobody can connect to a component. Names are told to servers, and so looked up only for
/// one that may send something.
pub fn allow(wasi: &mut WasiCtxBuilder, allowed: &Arc<[AllowedHost]>, destinations: &Arc<Destinations>) {
    let (allowed, destinations) = (allowed.clone(), destinations.clone());
    let names = allowed.iter().any(|it| it.has_scheme(&["tcp", "udp"]));
    wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(names).socket_addr_check(move |address, used| {
        let permitted = permits(&allowed, &destinations, address, used);
        Box::pin(async move { permitted })
    });
}

/// A place of its own is any that the system chooses. Datagrams come from where they may go to.
fn permits(allowed: &[AllowedHost], destinations: &Destinations, address: SocketAddr, used: SocketAddrUse) -> bool {
    let scheme = match used {
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => return address.ip().is_unspecified() && address.port() == 0,
        SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => return false,
        SocketAddrUse::TcpConnect => "tcp",
        SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => "udp",
    };
    allows(allowed, scheme, &address.ip().to_string(), address.port()) && !destinations.blocks(address.ip())
}
