//! The vocabulary of Tidegate: what a routing table is, and how a request finds its route in it.
//!
//! | Word | Meaning |
//! |---|---|
//! | listener | an address and port we accept connections on, with its protocol |
//! | virtual host | everything served under one host name (exact, `*.wildcard`, or any) |
//! | route | a match on the request, the policy that applies to it, and an action |
//! | filter | what is done with a request and its answer besides: who may ask, how often, for which path |
//! | action | forward to a cluster, or answer directly |
//! | cluster | a named group of endpoints with one balancing policy (an "upstream group") |
//! | endpoint | one address that can serve a request |
//! | relay | a listener or server name whose bytes are passed on to a cluster without being understood |
//! | publish | to make a new table the one that requests are routed by |
//!
//! A [`RoutingTable`] is immutable and closed: every cluster that a route forwards to is in it. It knows nothing of
//! Kubernetes, sockets or threads; the crates around it convert at their edges.

pub mod authorities;
pub mod certificate;
pub mod client_certificate;
pub mod cluster;
pub mod endpoint;
pub mod filter;
pub mod id;
pub mod listener;
pub mod matcher;
pub mod policy;
pub mod relay;
pub mod route;
pub mod table;
pub mod text;
pub mod update;
pub mod upstream_tls;
pub mod virtual_host;

pub use authorities::Authorities;
pub use certificate::{Certificate, SniIndex};
pub use client_certificate::{CertificateDemand, ClientCertificates};
pub use cluster::{
    Cluster, ClusterIndex, ClusterSet, Discovery, DnsQuery, DnsSource, Merged, ProxyVersion,
    UpstreamProtocol, is_dns_name,
};
pub use endpoint::{Endpoint, Serving};
pub use filter::Filter;
pub use id::{ClusterId, ListenerId, RouteId, Transport};
pub use listener::{Listener, ListenerProtocol, TlsSettings, overlap};
pub use matcher::{ClientAddress, Conditions, HostMatch, PathMatch, RequestFields};
pub use policy::Policy;
pub use relay::{Relay, RelayIndex, RelayLimits};
pub use route::{Action, InFlightLimit, Limits, RetryPolicy, Route, Timeouts};
pub use table::{RouteIndex, RoutingTable, TableError};
pub use update::{EndpointSets, Unpublished, Update};
pub use upstream_tls::{TlsVersions, UpstreamTls, UpstreamVerify};
pub use virtual_host::{VirtualHost, VirtualHosts};
