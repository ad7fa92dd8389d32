//! Pure: turns everything watched into one routing table, the endpoints of its clusters, and what is wrong with each object.
//!
//! [`translate`] never fails as a whole: one bad object costs itself a diagnostic and nothing else. It does no I/O, reads no
//! clock and gives the same output for the same input, whatever order objects came in.

pub mod diagnostic;
pub mod settings;
pub mod snapshot;

pub use diagnostic::{Diagnostic, Severity};
pub use settings::{HostOwnership, Settings};
pub use snapshot::{Kind, Object, ObjectKey, ObjectRef, Snapshot};

use routing_table::{ClusterId, Endpoint, EndpointSets, RoutingTable};
use std::sync::Arc;

/// What a snapshot means.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// What requests are routed by.
    pub table: Arc<RoutingTable>,
    /// The endpoints of every cluster of the table.
    pub endpoints: EndpointSets,
    /// What is wrong, sorted by object.
    pub diagnostics: Vec<Diagnostic>,
    /// The Ingresses that are ours by class, whose status we write; sorted.
    pub claimed: Vec<ObjectKey>,
}

/// Turns a snapshot into a routing table. Never fails as a whole.
pub fn translate(_snapshot: &Snapshot, _settings: &Settings) -> Translation {
    todo!("the translate crate is being written")
}

/// The endpoints of one cluster: what [`translate`] would put into [`Translation::endpoints`] for it.
pub fn endpoints(_snapshot: &Snapshot, _settings: &Settings, _cluster: &ClusterId) -> Vec<Endpoint> {
    todo!("the translate crate is being written")
}
