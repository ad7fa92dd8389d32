//! What an operator decides for the whole installation; everything else comes from objects.

use crate::authorities::AuthorityCache;
use crate::certificate::CertificateCache;
use crate::snapshot::ObjectKey;
use routing_table::{RelayLimits, Timeouts};
use std::net::SocketAddr;
use std::sync::Arc;

/// Settings of the translation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where plain HTTP is served. `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served. `None`: nowhere.
    pub https: Option<SocketAddr>,
    /// Clients of both come through a proxy that sends a header of the PROXY protocol. Default false.
    pub proxy_header: bool,
    /// Whether anybody's header of the PROXY protocol is believed. Default true.
    pub proxy_header_believed: bool,
    /// ConfigMap of TCP ports, each with the Service that it is relayed to. Default: none.
    pub tcp_services: Option<ObjectKey>,
    /// The same for UDP.
    pub udp_services: Option<ObjectKey>,
    /// Whether Ingresses may have their TLS passed on. Default false, as ingress-nginx.
    pub ssl_passthrough: bool,
    /// Whether plain requests for hosts with TLS are sent to https where an object says nothing. Default true, as ingress-nginx.
    pub ssl_redirect: bool,
    /// Limits of relayed TCP connections.
    pub tcp_limits: RelayLimits,
    /// Limits of UDP sessions.
    pub udp_limits: RelayLimits,
    /// TCP ports that are in use for something else than `http` and `https`.
    pub reserved_ports: Vec<u16>,
    /// `IngressClass.spec.controller` that is ours. Default `tidegate.dev/ingress-controller`.
    pub controller: String,
    /// Value of the deprecated `kubernetes.io/ingress.class` annotation that is ours, and the only class we serve when set
    /// apart from the default. Default `tidegate`.
    pub class: String,
    /// Serve Ingresses that name no class even when no IngressClass of ours is the default. True for manifests from files,
    /// false in a cluster.
    pub serve_classless: bool,
    /// Who may use a host name that another namespace uses.
    pub host_ownership: HostOwnership,
    /// Follow Services of type ExternalName. Default false (CVE-2021-32783 and its like).
    pub external_name: bool,
    /// The DNS domain of the cluster. Default `cluster.local`.
    pub cluster_domain: String,
    /// Name servers to ask; empty: those of the system. Default: none.
    pub dns_resolvers: Vec<SocketAddr>,
    /// Accept endpoints on loopback and link-local addresses. False in a cluster, where such an address would be one of
    /// ours; true for manifests from files.
    pub local_endpoints: bool,
    /// Secret of the certificate for clients that no other certificate fits. Default: a generated one.
    pub default_certificate: Option<ObjectKey>,
    /// Time limits where an object says nothing.
    pub timeouts: Timeouts,
    /// Largest request body in bytes where an object says nothing; `None` is unlimited. Default 1 MiB, as ingress-nginx.
    pub request_body: Option<u64>,
    /// What certificates were made of Secrets already. Cloned settings share it.
    pub certificates: Arc<CertificateCache>,
    /// The same of authorities.
    pub authorities: Arc<AuthorityCache>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: Some(SocketAddr::from(([0, 0, 0, 0], 8080))),
            https: Some(SocketAddr::from(([0, 0, 0, 0], 8443))),
            proxy_header: false,
            proxy_header_believed: true,
            tcp_services: None,
            udp_services: None,
            ssl_passthrough: false,
            ssl_redirect: true,
            tcp_limits: RelayLimits::TCP,
            udp_limits: RelayLimits::UDP,
            reserved_ports: Vec::new(),
            controller: "tidegate.dev/ingress-controller".into(),
            class: "tidegate".into(),
            serve_classless: false,
            host_ownership: HostOwnership::default(),
            external_name: false,
            cluster_domain: "cluster.local".into(),
            dns_resolvers: Vec::new(),
            local_endpoints: false,
            default_certificate: None,
            timeouts: Timeouts::default(),
            request_body: Some(1024 * 1024),
            certificates: Arc::default(),
            authorities: Arc::default(),
        }
    }
}

/// Who may use a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostOwnership {
    /// The namespace of the oldest Ingress that names it. Others get a diagnostic (`docs/decisions/`).
    #[default]
    Namespace,
    /// Everybody; only an equal host and path is a conflict, which the oldest wins. As ingress-nginx.
    Shared,
}
