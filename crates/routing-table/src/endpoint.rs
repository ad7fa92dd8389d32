//! One address that can serve a request.

use std::net::SocketAddr;

/// One address of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where to connect to.
    pub addr: SocketAddr,
    /// Whether it should get requests.
    pub serving: Serving,
}

impl Endpoint {
    /// A ready endpoint.
    pub fn ready(addr: SocketAddr) -> Self {
        Self {
            addr,
            serving: Serving::Ready,
        }
    }
}

/// How willing an endpoint is. Order matters: the picker uses the first kind that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serving {
    /// Takes requests.
    Ready,
    /// Terminating but still serving: used only when no endpoint is ready (KEP-1669).
    Draining,
}
