//! What the replica that picks is: the same for all its clusters and for its whole life.

use crate::order::custom::CustomOrder;
use std::sync::Arc;

/// The replica that picks.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Tells replicas apart, for the choice of a subset.
    pub number: u64,
    /// The zone it is in. `None`: not known, so no endpoint is nearer than another.
    pub zone: Option<Arc<str>>,
    /// Orders that policies may name beside ours. Of two with one name the first counts.
    pub orders: Vec<Arc<dyn CustomOrder>>,
}

impl Here {
    /// The order of this name.
    pub fn order(&self, name: &str) -> Option<&dyn CustomOrder> {
        let mut orders = self.orders.iter();
        let found = orders.find(|order| order.name() == name);
        found.map(|order| &**order)
    }
}
