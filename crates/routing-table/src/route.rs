//! A route: what it matches, the policy that applies, and what is done.

use crate::client_certificate::ClientCertificates;
use crate::cluster::ClusterIndex;
use crate::filter::Filter;
use crate::id::RouteId;
use crate::matcher::{Conditions, PathMatch};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// One route of a virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which object and rule it was made from.
    pub id: RouteId,
    /// The path it matches.
    pub path: PathMatch,
    /// What else a request must be like. Default: nothing.
    pub conditions: Conditions,
    /// When to give up waiting.
    pub timeouts: Timeouts,
    /// How large things may get.
    pub limits: Limits,
    /// When to try another endpoint.
    pub retry: RetryPolicy,
    /// What is done with its requests besides, in this order.
    pub filters: Vec<Filter>,
    /// What clients must show before they get anything from it: that of its virtual host.
    pub client_certificates: Option<Arc<ClientCertificates>>,
    /// What is done with the request.
    pub action: Action,
}

impl Route {
    /// Order of routes in one virtual host, the first match wins: exact paths, then longer before shorter paths, then
    /// element-wise before character prefixes, then by [`Conditions::precedence`]. `sort` is stable, so the caller's order (oldest object first) breaks ties.
    ///
    /// Ingress v1, "Multiple matches": "precedence will be given first to the longest matching path. If two paths are
    /// still equally matched, precedence will be given to paths with an exact path type over prefix path type."
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.path
            .precedence(&other.path)
            .then_with(|| self.conditions.precedence(&other.conditions))
    }
}

/// What is done with a request that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Forward to a cluster.
    Forward(ClusterIndex),
    /// Answer without asking an upstream.
    Respond(DirectResponse),
}

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Why, in one word, for the access log: for example `backend_not_found`.
    pub reason: &'static str,
}

/// Time limits of a route. The read and write limits are between two operations, so a stream lives as long as bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to one endpoint. Default 2 s.
    pub connect: Duration,
    /// From the end of the request to the first byte of the response. Default 60 s.
    pub first_byte: Duration,
    /// Between two reads or two writes of a body. Default 60 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// Size limits of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Largest request body in bytes; a larger one is answered 413. `None` is unlimited.
    pub request_body: Option<u64>,
    /// Most requests in progress at one endpoint, and what happens to more. `None` is unlimited.
    pub in_flight: Option<InFlightLimit>,
}

/// Most requests in progress at one endpoint, of all routes to it that have such a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightLimit {
    /// At least 1.
    pub requests: u32,
    /// Most requests that wait for an endpoint, in all; more are answered 503. Default 100.
    pub queue: u32,
    /// How long one waits before it is answered 503. Default 1 s.
    pub wait: Duration,
}

impl Default for InFlightLimit {
    fn default() -> Self {
        Self {
            requests: u32::MAX,
            queue: 100,
            wait: Duration::from_secs(1),
        }
    }
}

/// When a request may be tried again on another endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Endpoints that are tried in all, at least 1. Default 3.
    pub attempts: u32,
    /// How often one that cannot be connected to is tried again before another is. Default 0.
    pub same_endpoint: u32,
    /// Before it is tried again. Default 10 ms.
    pub pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            same_endpoint: 0,
            pause: Duration::from_millis(10),
        }
    }
}
