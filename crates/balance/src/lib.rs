//! Pure: which endpoint gets the next request, and what is remembered about endpoints between two tables.
//!
//! No sockets, no clock, no randomness of its own: whoever calls passes in what is needed.
//!
//! - [`endpoint_state`]: what is known of one endpoint.
//! - [`endpoint_set`]: who may get requests, and the pick. - [`picker`]: whose turn it is.
//! - [`conduct`]: what is seen of an endpoint in real traffic: [`waiting`], judged by [`outlier`] and by [`breaker`].
//! - [`active_check`], [`agent_check`]: what probes and agents say. - [`notes`]: what people are told of an endpoint.
//! - [`here`]: the replica that picks, and `zone`, which endpoints are near it.
//! - [`latency`]: how long answers took lately. - [`sticky`]: which endpoint a client had last.
//! - [`order`]: the policies, a file each. - [`retry_budget`]: how many requests may be sent again.

pub mod active_check;
pub mod agent_check;
pub mod breaker;
pub mod conduct;
pub mod endpoint_set;
pub mod endpoint_state;
pub mod here;
pub mod latency;
pub mod notes;
pub mod order;
pub mod outlier;
pub mod picker;
pub mod retry_budget;
pub mod sticky;
mod sync;
pub mod waiting;
mod zone;

#[cfg(all(test, loom))]
#[path = "tests/interleavings.rs"]
mod interleavings;

pub use breaker::Breaker;
pub use conduct::{Conduct, Reply};
pub use endpoint_set::{Ask, EndpointSet, Member, NoPick, Picked};
pub use endpoint_state::{Bar, EndpointState, Seat};
pub use here::Here;
pub use notes::{Check, LastCheck, Reason, Voice};
pub use outlier::Outlier;
pub use picker::Picker;
pub use retry_budget::RetryBudget;
pub use sticky::Sticky;
pub use waiting::Waiting;
