//! One address that can serve a request.

use std::net::SocketAddr;
use std::sync::Arc;

/// One address of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where to connect to.
    pub addr: SocketAddr,
    /// Whether it should get requests.
    pub serving: Serving,
    /// Its share beside the others of its priority. 0: none, unless all have 0. Default 1.
    pub weight: u32,
    /// Endpoints of the lowest priority that can be reached are used. Default 0.
    pub priority: u16,
    /// Most requests in progress at it. Default: unlimited, or what its route says.
    pub max_requests: Option<u32>,
    /// Where it is, for preference of what is near.
    pub zone: Option<Arc<str>>,
    /// Zones that its source wants to send to it. Default: it does not say.
    pub for_zones: Option<Arc<[Arc<str>]>>,
    /// What it is called, where its source gives it a name: the target of an SRV record.
    pub name: Option<Arc<str>>,
}

impl Endpoint {
    /// A ready endpoint with the defaults of the rest.
    pub fn ready(addr: SocketAddr) -> Self {
        Self::new(addr, Serving::Ready)
    }

    /// An endpoint with the defaults of the rest.
    pub fn new(addr: SocketAddr, serving: Serving) -> Self {
        Self {
            addr,
            serving,
            weight: 1,
            priority: 0,
            max_requests: None,
            zone: None,
            for_zones: None,
            name: None,
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
