//! A cluster as the data plane runs it: its endpoints, and the state that outlives tables.

use arc_swap::ArcSwap;
use balance::{EndpointSet, EndpointState, Picker};
use routing_table::{ClusterId, Endpoint};
use std::net::SocketAddr;
use std::sync::Arc;

/// One cluster. It stays the same value for as long as consecutive tables have the cluster.
#[derive(Debug)]
pub(crate) struct Upstream {
    id: ClusterId,
    endpoints: ArcSwap<EndpointSet>,
    picker: Picker,
}

impl Upstream {
    /// A cluster without endpoints.
    pub(crate) fn new(id: ClusterId) -> Self {
        Self {
            id,
            endpoints: ArcSwap::default(),
            picker: Picker::default(),
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &ClusterId {
        &self.id
    }

    /// Makes these its endpoints; state is kept by address.
    pub(crate) fn set_endpoints(&self, endpoints: &[Endpoint]) {
        let next = EndpointSet::new(endpoints, &self.endpoints.load());
        self.endpoints.store(Arc::new(next));
    }

    /// The endpoint for one attempt, not one of `tried` if there is another.
    pub(crate) fn pick(&self, tried: &[SocketAddr]) -> Option<Arc<EndpointState>> {
        self.picker
            .pick_other(&self.endpoints.load(), tried)
            .cloned()
    }

    /// Every endpoint.
    pub(crate) fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }
}
