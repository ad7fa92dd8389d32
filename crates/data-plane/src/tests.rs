//! Tests of the proxy over real sockets: a table literal, backends that say their name, a client that never retries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a failed unwrap is a failed test"
)]

mod back_pressure;
mod balancing;
mod bodies;
mod breaker;
mod connections;
mod corpus;
mod counts;
mod errors;
mod filters;
mod handshakes;
mod health_probes;
mod hooks;
mod http2_front;
mod http2_upstream;
mod intact;
mod l4;
mod outliers;
mod own_answers;
mod placement;
mod proxy_protocol;
mod raw;
mod retries;
mod routing;
mod side_by_side;
mod spellings;
mod swaps;
mod tls;
mod upgrade;
mod upstream_tls;

use crate::{Backends, DataPlane, Publisher, Settings};
use routing_table::{
    Action, ClientCertificates, Cluster, ClusterId, ClusterSet, Discovery, Endpoint, EndpointSets,
    Filter, HostMatch, InFlightLimit, Limits, Listener, ListenerId, ListenerProtocol, PathMatch,
    Policy, ProxyVersion, RetryPolicy, Route, RouteId, RoutingTable, Timeouts, Update,
    UpstreamProtocol, UpstreamTls, VirtualHost, VirtualHosts,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A running data plane with one plain listener.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) publisher: Publisher,
    pub(crate) registry: prometheus::Registry,
    data_plane: Option<DataPlane>,
}

/// Which host and path goes to which endpoints.
pub(crate) struct Rule {
    host: String,
    cluster: String,
    endpoints: Vec<Endpoint>,
    policy: Policy,
    timeouts: Timeouts,
    limits: Limits,
    retry: RetryPolicy,
    pub(crate) filters: Vec<Filter>,
    protocol: UpstreamProtocol,
    proxy_header: Option<ProxyVersion>,
    pub(crate) client_certificates: Option<Arc<ClientCertificates>>,
    pub(crate) upstream_tls: Option<Arc<UpstreamTls>>,
}

/// Everything of a host goes to these endpoints.
pub(crate) fn host(name: &str, endpoints: &[SocketAddr]) -> Rule {
    let (timeouts, limits, retry) = Default::default();
    Rule {
        host: name.to_owned(),
        cluster: name.to_owned(),
        endpoints: endpoints.iter().copied().map(Endpoint::ready).collect(),
        policy: Policy::default(),
        timeouts,
        limits,
        retry,
        filters: Vec::new(),
        protocol: UpstreamProtocol::Http1,
        proxy_header: None,
        client_certificates: None,
        upstream_tls: None,
    }
}

impl Rule {
    /// Names the cluster; without it, it is named after the host.
    pub(crate) fn cluster(mut self, name: &str) -> Self {
        self.cluster = name.to_owned();
        self
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Its endpoints with all that is declared of them.
    pub(crate) fn endpoints(mut self, endpoints: Vec<Endpoint>) -> Self {
        self.endpoints = endpoints;
        self
    }

    /// Its endpoints speak HTTP/2.
    pub(crate) fn http2(mut self) -> Self {
        self.protocol = UpstreamProtocol::Http2;
        self
    }

    pub(crate) fn first_byte(mut self, timeout: Duration) -> Self {
        self.timeouts.first_byte = timeout;
        self
    }

    pub(crate) fn connect(mut self, timeout: Duration) -> Self {
        self.timeouts.connect = timeout;
        self
    }

    pub(crate) fn idle(mut self, timeout: Duration) -> Self {
        self.timeouts.idle = timeout;
        self
    }

    pub(crate) fn body_limit(mut self, bytes: u64) -> Self {
        self.limits.request_body = Some(bytes);
        self
    }

    pub(crate) fn proxy_header(mut self, version: ProxyVersion) -> Self {
        self.proxy_header = Some(version);
        self
    }

    /// At most so many requests at one endpoint; so many more wait for so long.
    pub(crate) fn in_flight(mut self, requests: u32, queue: u32, wait: Duration) -> Self {
        self.limits.in_flight = Some(InFlightLimit {
            requests,
            queue,
            wait,
        });
        self
    }

    pub(crate) fn attempts(mut self, attempts: u32) -> Self {
        self.retry.attempts = attempts;
        self
    }
}

/// A table of these rules on one listener at a port of its own.
pub(crate) fn table(rules: &[Rule]) -> Update {
    table_on("http", ListenerProtocol::Http, rules)
}

/// The same on a listener that speaks this.
pub(crate) fn table_on(name: &str, protocol: ListenerProtocol, rules: &[Rule]) -> Update {
    let mut clusters = ClusterSet::default();
    let mut sets = EndpointSets::new();
    let mut hosts = Vec::new();
    for rule in rules {
        let id = ClusterId::new("test", &rule.cluster, 80);
        sets.insert(id.clone(), rule.endpoints.clone());
        let cluster = Cluster {
            id,
            protocol: rule.protocol,
            tls: rule.upstream_tls.clone(),
            discovery: Discovery::Static,
            policy: Arc::new(rule.policy.clone()),
            proxy_header: rule.proxy_header,
        };
        let route = Route {
            id: RouteId {
                kind: "Ingress",
                namespace: "test".into(),
                name: rule.host.as_str().into(),
                rule: "rules[0]".into(),
            },
            path: PathMatch::prefix("/"),
            conditions: Default::default(),
            timeouts: rule.timeouts,
            limits: rule.limits,
            retry: rule.retry,
            filters: rule.filters.clone(),
            client_certificates: None,
            action: Action::Forward(clusters.add(cluster)),
        };
        hosts.push(VirtualHost {
            host: HostMatch::Exact(rule.host.as_str().into()),
            routes: vec![route],
            client_certificates: rule.client_certificates.clone(),
        });
    }
    let listener = Listener {
        id: ListenerId::new(name),
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        protocol,
        proxy_header: false,
        virtual_hosts: Arc::new(VirtualHosts::new(hosts, None)),
    };
    Update::Table(
        Arc::new(RoutingTable::new(vec![listener], clusters).unwrap()),
        sets,
    )
}

/// A defect in the middle of a request, for those who ask for one.
pub(crate) fn panic_if_asked_to(request: &http::request::Parts) {
    let host = request.headers.get(http::header::HOST);
    let host = request
        .uri
        .host()
        .or(host.and_then(|host| host.to_str().ok()));
    assert!(host != Some("panic.test"), "as it was asked to");
}

/// Serves these rules.
pub(crate) fn serve(rules: &[Rule]) -> Proxy {
    serve_with(
        rules,
        Settings {
            workers: 2,
            ..Settings::default()
        },
    )
}

pub(crate) fn serve_with(rules: &[Rule], settings: Settings) -> Proxy {
    serve_table(table(rules), settings)
}

pub(crate) fn serve_table(table: Update, settings: Settings) -> Proxy {
    let registry = prometheus::Registry::new();
    let (data_plane, mut publisher) = DataPlane::start(settings, None, &registry).unwrap();
    publisher.apply(table).unwrap();
    let addr = publisher.addresses()[0].1;
    Proxy {
        addr,
        publisher,
        registry,
        data_plane: Some(data_plane),
    }
}

impl Proxy {
    /// One metric, summed over its series.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let series = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// One series, written as it is exposed; 0 where there is none.
    pub(crate) fn series(&self, name: &str) -> f64 {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let values = text.lines().filter_map(|line| line.strip_prefix(name));
        values
            .filter_map(|value| value.trim().parse::<f64>().ok())
            .sum()
    }

    /// Waits until a metric has this value; panics after 20 s.
    pub(crate) async fn metric_becomes(&self, name: &str, value: f64) {
        let start = std::time::Instant::now();
        while self.metric(name) != value {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{name} is {}, not {value}",
                self.metric(name)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What shows and controls its endpoints.
    pub(crate) fn backends(&self) -> Backends {
        self.data_plane.as_ref().unwrap().backends()
    }

    pub(crate) async fn stop(mut self, lameduck: Duration, drain: Duration) -> bool {
        self.data_plane.take().unwrap().stop(lameduck, drain).await
    }
}
