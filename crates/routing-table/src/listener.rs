//! Listeners: where connections are accepted and what is spoken on them.

use crate::certificate::{Certificate, SniIndex};
use crate::id::ListenerId;
use crate::relay::{Relay, RelayIndex};
use crate::virtual_host::VirtualHosts;
use std::net::SocketAddr;
use std::sync::Arc;

/// One address and port we accept connections on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub id: ListenerId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
    /// Every connection must begin with a header of the PROXY protocol, from a peer that may send one.
    pub proxy_header: bool,
    /// What it serves. Listeners that serve the same share one value.
    pub virtual_hosts: Arc<VirtualHosts>,
}

impl Listener {
    /// Every relay of it.
    pub fn relays(&self) -> Vec<&Arc<Relay>> {
        match &self.protocol {
            ListenerProtocol::Http => Vec::new(),
            ListenerProtocol::Https(settings) => settings
                .passthrough
                .iter()
                .map(|(_, relay)| relay)
                .collect(),
            ListenerProtocol::Tcp(relay) | ListenerProtocol::Udp(relay) => vec![relay],
        }
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 over plain TCP.
    Http,
    /// HTTP/1.1 or HTTP/2 over TLS, chosen by ALPN.
    Https(Arc<TlsSettings>),
    /// Anything over TCP.
    Tcp(Arc<Relay>),
    /// Anything over UDP.
    Udp(Arc<Relay>),
}

/// What a TLS listener answers with: its certificates, or somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// By server name.
    pub certificates: SniIndex,
    /// For clients that send no server name, or one that is not in the index. `None` is a self-signed one that the data
    /// plane generates when it starts.
    pub default_certificate: Option<Arc<Certificate>>,
    /// Server names whose connections are passed on as they are, for the endpoint to do TLS.
    pub passthrough: RelayIndex,
}

/// Whether only one of two sockets that listen can have its address: they have one port, and one address, or the one takes
/// connections to every address that the other could have. `::` takes those of IPv4 too, as Linux has it by default. Port 0 is
/// another one each time.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |one: SocketAddr, other: SocketAddr| {
        let (one, other) = (one.ip(), other.ip());
        one == other || (one.is_unspecified() && (one.is_ipv6() || other.is_ipv4()))
    };
    let same_port = one.port() == other.port() && one.port() != 0;
    same_port && (takes(one, other) || takes(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_every_address_leaves_no_room() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }
}
