//! Relays: bytes that are passed on as they are, without being understood.

use crate::cluster::{ClusterIndex, ProxyVersion};
use crate::filter::AccessList;
use crate::id::RouteId;
use crate::matcher::HostMatch;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the connections (TCP) or datagrams (UDP) of a listener go, or the connections for one TLS server name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Which object and entry it was made from.
    pub id: RouteId,
    /// Where to. Each connection, or each UDP client, gets one endpoint.
    pub cluster: ClusterIndex,
    /// When to give up.
    pub limits: RelayLimits,
    /// What each connection to an endpoint begins with. Not for UDP.
    pub proxy_header: Option<ProxyVersion>,
    /// Which clients are let in, by the address that a PROXY header names if there is one that is believed. Default: all.
    pub access: AccessList,
}

/// Limits of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// To connect to one endpoint. Default 2 s.
    pub connect: Duration,
    /// Without a byte in either direction. Default 10 min for TCP, 60 s for UDP.
    pub idle: Duration,
    /// Most connections or UDP sessions at a time, over all workers. Default 10,000.
    pub most: u64,
    /// Close a connection when its endpoint is no endpoint any more. Default false: an endpoint that is going finishes what
    /// it has. A UDP session ends with its endpoint in any case.
    pub close_with_endpoint: bool,
    /// A UDP session ends when so many answers have come for each datagram of its client; at least 1. Default: silence ends it.
    pub responses: Option<u32>,
}

impl RelayLimits {
    /// Defaults for TCP.
    pub const TCP: Self = Self {
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(600),
        most: 10_000,
        close_with_endpoint: false,
        responses: None,
    };

    /// Defaults for UDP.
    pub const UDP: Self = Self {
        idle: Duration::from_secs(60),
        ..Self::TCP
    };
}

/// Relays by TLS server name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayIndex(BTreeMap<HostMatch, Arc<Relay>>);

impl RelayIndex {
    /// Relays connections for `host`. The first relay given for a host stays; returns whether this one was taken.
    /// [`HostMatch::Any`] is not a server name and is never taken.
    pub fn add(&mut self, host: &HostMatch, relay: Relay) -> bool {
        if *host == HostMatch::Any || self.0.contains_key(host) {
            return false;
        }
        self.0.insert(host.clone(), Arc::new(relay));
        true
    }

    /// Takes out what a host was given.
    pub fn remove(&mut self, host: &HostMatch) -> Option<Arc<Relay>> {
        self.0.remove(host)
    }

    /// All of them, sorted by host.
    pub fn iter(&self) -> impl Iterator<Item = (&HostMatch, &Arc<Relay>)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
