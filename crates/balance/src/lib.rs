//! Pure: which endpoint gets the next request, and what is remembered about endpoints between two tables.
//!
//! No sockets, no clock, no randomness of its own: whoever calls passes in what is needed.

pub mod endpoint_set;
pub mod picker;
pub mod retry_budget;

pub use endpoint_set::{EndpointSet, EndpointState};
pub use picker::{NoPick, Picker};
pub use retry_budget::RetryBudget;
