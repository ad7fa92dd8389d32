//! Watches objects, batches changes, translates, publishes, and tells the cluster about it.
//!
//! ```text
//!  source/kubernetes ─┐                 ┌─> publish(Update)        the data plane's one writer
//!  source/directory  ─┴─ Change ─> run ─┤
//!                         (store,batch) └─> Report ─> status_writer  leader only (lease)
//!                                                 └─> event_writer   leader only
//! ```
//!
//! [`run()`] is the one loop: it owns the snapshot, decides when to translate, and is the only caller of `publish`. Nothing is
//! translated before every kind has been listed once; a source that fails later changes nothing.

mod addresses;
pub mod batch;
pub mod event_writer;
pub mod lease;
pub mod metrics;
pub mod policy_status;
pub mod run;
pub mod source;
pub mod status_writer;
pub mod store;
mod trim;

pub use batch::Batch;
pub use metrics::Metrics;
pub use run::{Options, Report, run};
pub use source::Change;
