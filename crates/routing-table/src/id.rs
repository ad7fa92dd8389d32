//! Names of listeners, routes and clusters: structured, so that logs, metrics and status can say which object decided.

use std::fmt;
use std::sync::Arc;

/// Names a listener, for example `http`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub Arc<str>);

impl ListenerId {
    /// A listener name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the object and rule a route was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    /// Kind of the object, for example `Ingress`.
    pub kind: &'static str,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    /// Which part of the object, for example `rules[0].paths[1]` or `defaultBackend`.
    pub rule: Arc<str>,
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{} {}",
            self.kind, self.namespace, self.name, self.rule
        )
    }
}

/// Names a cluster: in Kubernetes a Service, one of its port numbers, and how its endpoints are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service.
    pub service: Arc<str>,
    /// The port number of the Service (not of its endpoints).
    pub port: u16,
    /// Tells clusters of one port apart that are spoken to in different ways; `None` is the usual way.
    pub variant: Option<Arc<str>>,
    /// A Service may have the same number for both.
    pub transport: Transport,
}

/// What a port is a port of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        }
    }
}

impl ClusterId {
    /// The cluster of a Service's TCP port.
    pub fn new(namespace: &str, service: &str, port: u16) -> Self {
        Self {
            namespace: namespace.into(),
            service: service.into(),
            port,
            variant: None,
            transport: Transport::Tcp,
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)?;
        if self.transport == Transport::Udp {
            f.write_str("/udp")?;
        }
        match &self.variant {
            Some(variant) => write!(f, " ({variant})"),
            None => Ok(()),
        }
    }
}
