//! What a request is matched on, each kind in a file of its own.

pub mod host;
pub mod path;

pub use host::HostMatch;
pub use path::PathMatch;
