//! What the replica that picks is: the same for all its clusters and for its whole life.

use std::sync::Arc;

/// The replica that picks.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Tells replicas apart, for the choice of a subset.
    pub number: u64,
    /// The zone it is in. `None`: not known, so no endpoint is nearer than another.
    pub zone: Option<Arc<str>>,
}
