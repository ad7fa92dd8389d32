//! All that crosses from the controller to the data plane.

use crate::endpoint::Endpoint;
use crate::id::ClusterId;
use crate::table::RoutingTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Endpoints by cluster. A cluster that is absent is not touched; one with an empty list has no endpoints.
pub type EndpointSets = BTreeMap<ClusterId, Vec<Endpoint>>;

/// One change to what the data plane serves.
#[derive(Debug, Clone)]
pub enum Update {
    /// A whole new table, with the endpoints of its clusters. Published as one.
    Table(Arc<RoutingTable>, EndpointSets),
    /// New endpoints for these clusters; the table stays.
    Endpoints(EndpointSets),
}
