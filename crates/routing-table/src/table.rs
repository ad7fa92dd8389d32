//! The routing table: immutable, closed, and asked once per request.

use crate::cluster::{Cluster, ClusterIndex, ClusterSet};
use crate::id::ListenerId;
use crate::listener::{Listener, ListenerProtocol};
use crate::matcher::RequestFields;
use crate::route::{Action, Route};
use crate::virtual_host::VirtualHosts;
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything a request is routed by. Closed: every cluster that a route forwards to is in it.
#[derive(Debug, Clone, Default)]
pub struct RoutingTable {
    listeners: Vec<Listener>,
    /// Per listener: where the routes of its virtual hosts start in `routes`.
    first_route: Vec<usize>,
    routes: Vec<Arc<Route>>,
    clusters: ClusterSet,
}

impl PartialEq for RoutingTable {
    fn eq(&self, other: &Self) -> bool {
        // The other fields are made from these two.
        self.listeners == other.listeners && self.clusters == other.clusters
    }
}

impl Eq for RoutingTable {}

/// Position of a route in one table; another table has other positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex(u32);

impl RouteIndex {
    /// As an index into [`RoutingTable::routes`].
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// Why a table cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A route or relay names a cluster of some other set.
    #[error("route {0} forwards to a cluster that the table does not have")]
    UnknownCluster(String),
    /// Two listeners with one name.
    #[error("two listeners are named {0}")]
    DuplicateListener(ListenerId),
    /// Two listeners with one address. Port 0 may repeat.
    #[error("two listeners use the address {0}")]
    DuplicateAddress(SocketAddr),
}

/// Ports of UDP are not those of TCP.
fn is_udp(listener: &Listener) -> bool {
    matches!(listener.protocol, ListenerProtocol::Udp(_))
}

impl RoutingTable {
    /// Builds a table.
    ///
    /// # Errors
    /// See [`TableError`]; each names what is wrong.
    pub fn new(listeners: Vec<Listener>, clusters: ClusterSet) -> Result<Self, TableError> {
        let mut this = Self {
            clusters,
            ..Self::default()
        };
        let mut sets: Vec<(Arc<VirtualHosts>, usize)> = Vec::new();
        for listener in &listeners {
            let first = match sets
                .iter()
                .find(|(set, _)| Arc::ptr_eq(set, &listener.virtual_hosts))
            {
                Some((_, first)) => *first,
                None => {
                    let first = this.routes.len();
                    this.routes
                        .extend_from_slice(listener.virtual_hosts.routes());
                    sets.push((listener.virtual_hosts.clone(), first));
                    first
                }
            };
            this.first_route.push(first);
        }
        for (position, listener) in listeners.iter().enumerate() {
            if listeners[..position].iter().any(|l| l.id == listener.id) {
                return Err(TableError::DuplicateListener(listener.id.clone()));
            }
            if listener.addr.port() != 0
                && listeners[..position]
                    .iter()
                    .any(|l| l.addr == listener.addr && is_udp(l) == is_udp(listener))
            {
                return Err(TableError::DuplicateAddress(listener.addr));
            }
        }
        for route in &this.routes {
            if let Action::Forward(cluster) = route.action
                && this.clusters.get(cluster).is_none()
            {
                return Err(TableError::UnknownCluster(route.id.to_string()));
            }
        }
        for relay in listeners.iter().flat_map(Listener::relays) {
            if this.clusters.get(relay.cluster).is_none() {
                return Err(TableError::UnknownCluster(relay.id.to_string()));
            }
        }
        this.listeners = listeners;
        Ok(this)
    }

    /// The route for a request, or none. `listener` is a position in [`RoutingTable::listeners`]; host and path are in
    /// normal form ([`crate::matcher::host::normal_host`], [`crate::matcher::path::normal_path`]).
    pub fn find(
        &self,
        listener: usize,
        host: &str,
        path: &str,
        fields: &RequestFields<'_>,
    ) -> Option<RouteIndex> {
        let position = self
            .listeners
            .get(listener)?
            .virtual_hosts
            .find(host, path, fields)?;
        Some(RouteIndex((self.first_route[listener] + position) as u32))
    }

    /// The listeners, in the order given.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Every route of every listener; listeners that share virtual hosts share their routes.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The clusters.
    pub fn clusters(&self) -> &ClusterSet {
        &self.clusters
    }

    /// The cluster at an index that a route of this table holds.
    pub fn cluster(&self, index: ClusterIndex) -> Option<&Cluster> {
        self.clusters.get(index)
    }
}
