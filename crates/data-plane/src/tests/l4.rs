//! Relays over real sockets.

mod counts;
mod passthrough;
mod tcp;
mod udp;

use super::Proxy;
use crate::access_log::AccessLogSink;
use crate::{DataPlane, Settings};
use routing_table::filter::AccessList;
use routing_table::{
    Cluster, ClusterId, ClusterSet, Discovery, Endpoint, EndpointSets, Listener, ListenerId,
    ListenerProtocol, Policy, Relay, RelayLimits, RouteId, RoutingTable, Update, UpstreamProtocol,
    VirtualHosts,
};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One cluster with these endpoints, and a relay to it.
pub(super) fn relay_to(
    clusters: &mut ClusterSet,
    sets: &mut EndpointSets,
    name: &str,
    endpoints: &[SocketAddr],
    limits: RelayLimits,
) -> Relay {
    relay_by(clusters, sets, name, endpoints, limits, Arc::default())
}

fn relay_by(
    clusters: &mut ClusterSet,
    sets: &mut EndpointSets,
    name: &str,
    endpoints: &[SocketAddr],
    limits: RelayLimits,
    policy: Arc<Policy>,
) -> Relay {
    let id = ClusterId::new("test", name, 80);
    let ready = endpoints.iter().copied().map(Endpoint::ready).collect();
    sets.insert(id.clone(), ready);
    let cluster = clusters.add(Cluster {
        id,
        protocol: UpstreamProtocol::Http1,
        tls: None,
        discovery: Discovery::Static,
        policy,
        proxy_header: None,
    });
    Relay {
        id: RouteId {
            kind: "ConfigMap",
            namespace: "test".into(),
            name: "tcp".into(),
            rule: "data[9000]".into(),
        },
        cluster,
        limits,
        proxy_header: None,
        access: AccessList::default(),
    }
}

/// A table with one relaying listener, after `change`.
pub(super) fn relay_table(
    udp: bool,
    endpoints: &[SocketAddr],
    limits: RelayLimits,
    change: impl FnOnce(&mut Listener, &mut Relay),
) -> Update {
    let (mut clusters, mut sets) = (ClusterSet::default(), EndpointSets::new());
    let relay = relay_to(&mut clusters, &mut sets, "a", endpoints, limits);
    table_of(udp, relay, clusters, sets, change)
}

/// A table with one listener that relays TCP to these endpoints by this policy.
pub(super) fn relay_table_by(policy: Policy, endpoints: &[SocketAddr]) -> Update {
    let (mut clusters, mut sets) = (ClusterSet::default(), EndpointSets::new());
    let (limits, policy) = (RelayLimits::TCP, Arc::new(policy));
    let relay = relay_by(&mut clusters, &mut sets, "a", endpoints, limits, policy);
    table_of(false, relay, clusters, sets, |_, _| {})
}

fn table_of(
    udp: bool,
    mut relay: Relay,
    clusters: ClusterSet,
    sets: EndpointSets,
    change: impl FnOnce(&mut Listener, &mut Relay),
) -> Update {
    let mut listener = Listener {
        id: ListenerId::new(if udp { "udp-9000" } else { "tcp-9000" }),
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        protocol: ListenerProtocol::Http,
        proxy_header: false,
        virtual_hosts: Arc::new(VirtualHosts::default()),
    };
    change(&mut listener, &mut relay);
    listener.protocol = if udp {
        ListenerProtocol::Udp(Arc::new(relay))
    } else {
        ListenerProtocol::Tcp(Arc::new(relay))
    };
    let table = RoutingTable::new(vec![listener], clusters).unwrap();
    Update::Table(Arc::new(table), sets)
}

/// What was logged.
#[derive(Clone, Default)]
pub(super) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    /// The first `count` lines; panics unless they come within 10 s.
    pub(super) async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        let start = std::time::Instant::now();
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if text.lines().count() >= count {
                let lines = text.lines();
                return lines
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Serves a table; gives what is logged too.
pub(super) fn serve_relay(update: Update, settings: Settings) -> (Proxy, Logged) {
    let (registry, logged) = (prometheus::Registry::new(), Logged::default());
    let (sink, _) = AccessLogSink::start(logged.clone()).unwrap();
    let (data_plane, mut publisher) = DataPlane::start(settings, Some(sink), &registry).unwrap();
    publisher.apply(update).unwrap();
    let addr = publisher.addresses()[0].1;
    let proxy = Proxy {
        addr,
        publisher,
        registry,
        data_plane: Some(data_plane),
    };
    (proxy, logged)
}

/// One worker, so that what is counted for each of them is exact.
pub(super) fn one_worker() -> Settings {
    Settings {
        workers: 1,
        proxy_header_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    }
}
