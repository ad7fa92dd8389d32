//! Clusters: named groups of endpoints, and the set a table is closed over.

use crate::endpoint::Endpoint;
use crate::id::ClusterId;
use crate::policy::Policy;
use crate::upstream_tls::UpstreamTls;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A named group of endpoints with one policy. Its endpoints are not part of the table: they change far more often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub id: ClusterId,
    /// What we speak to its endpoints.
    pub protocol: UpstreamProtocol,
    /// The TLS it is spoken through; `None` is plain TCP.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Who owns its endpoints.
    pub discovery: Discovery,
    /// How its endpoints are chosen and judged.
    pub policy: Arc<Policy>,
    /// Tell endpoints whose connection this is, in a header of the PROXY protocol. A connection then carries one client's
    /// requests only.
    pub proxy_header: Option<ProxyVersion>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What is spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge where there is no TLS (RFC 9113 section 3.3). gRPC needs it.
    Http2,
}

/// Who owns the endpoints of a cluster: exactly one source may send updates for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// EndpointSlices of a Service.
    EndpointSlices,
    /// DNS: see [`DnsSource`].
    Dns(Arc<DnsSource>),
    /// Written down beside the table, never updated apart from it.
    Static,
    /// Several at once: see [`Merged`].
    Merged(Arc<Merged>),
}

/// Endpoints that are those of several sources together. One that knows nothing, or fails, takes nothing from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Written down. An address that a name has too is as it is here.
    pub fixed: Vec<Endpoint>,
    /// Looked up.
    pub dns: Vec<Arc<DnsSource>>,
}

impl Discovery {
    /// What is asked of the DNS.
    pub fn dns(&self) -> &[Arc<DnsSource>] {
        match self {
            Self::Dns(source) => std::slice::from_ref(source),
            Self::Merged(merged) => &merged.dns,
            Self::EndpointSlices | Self::Static => &[],
        }
    }

    /// Endpoints that are there beside those of the DNS.
    pub fn fixed(&self) -> &[Endpoint] {
        match self {
            Self::Merged(merged) => &merged.fixed,
            Self::Dns(_) | Self::EndpointSlices | Self::Static => &[],
        }
    }
}

/// Where in the DNS the endpoints of a cluster are found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsSource {
    /// What is asked for.
    pub query: DnsQuery,
    /// Who is asked; empty: whom the system asks.
    pub resolvers: Vec<SocketAddr>,
    /// Whether addresses are taken that a stranger's DNS should not be able to name: loopback, link-local, unspecified,
    /// multicast. Default: no.
    pub any_address: bool,
}

/// A question for endpoints. Names are absolute, with or without the dot at their end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsQuery {
    /// SRV records, for example `_http._tcp.api.shop.svc.cluster.local`: they give targets, ports, priorities and weights.
    Srv(Arc<str>),
    /// Addresses (A and AAAA) of a name, all with this port.
    Address(Arc<str>, u16),
}

/// Whether the DNS can have this name, without the dot at its end: labels of letters, digits, hyphens inside, and underscores, which
/// names of services have (RFC 1035 section 2.3, RFC 2782). An address written in figures may be one too.
pub fn is_dns_name(name: &str) -> bool {
    const MAX_NAME: usize = 253;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

impl fmt::Display for DnsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.query {
            DnsQuery::Srv(name) => write!(f, "by SRV {name}")?,
            DnsQuery::Address(name, port) => write!(f, "by address {name} port {port}")?,
        }
        for resolver in &self.resolvers {
            write!(f, " @{resolver}")?;
        }
        Ok(())
    }
}

/// Position of a cluster in the [`ClusterSet`] that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterIndex(u32);

impl ClusterIndex {
    /// As an index into [`ClusterSet::as_slice`].
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// The clusters of one table. A route can only name a cluster by the [`ClusterIndex`] that [`ClusterSet::add`] gave out,
/// which is what keeps the table closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterSet {
    clusters: Vec<Cluster>,
    by_id: BTreeMap<ClusterId, ClusterIndex>,
}

impl ClusterSet {
    /// Adds a cluster; one with the same id that is already there stays and its index is returned.
    pub fn add(&mut self, cluster: Cluster) -> ClusterIndex {
        let next = ClusterIndex(self.clusters.len() as u32);
        let index = *self.by_id.entry(cluster.id.clone()).or_insert(next);
        if index == next {
            self.clusters.push(cluster);
        }
        index
    }

    /// All clusters, in the order of their indices.
    pub fn as_slice(&self) -> &[Cluster] {
        &self.clusters
    }

    /// The cluster at an index of this set.
    pub fn get(&self, index: ClusterIndex) -> Option<&Cluster> {
        self.clusters.get(index.get())
    }

    /// Finds a cluster by name.
    pub fn index_of(&self, id: &ClusterId) -> Option<ClusterIndex> {
        self.by_id.get(id).copied()
    }
}
