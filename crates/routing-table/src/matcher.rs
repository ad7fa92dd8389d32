//! What a request is matched on, each kind in a file of its own.

pub mod conditions;
pub mod host;
pub mod path;

pub use conditions::{
    ClientAddress, Conditions, CookieMatch, HeaderMatch, QueryMatch, RequestFields, ValueMatch,
};
pub use host::HostMatch;
pub use path::PathMatch;
