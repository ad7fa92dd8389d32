//! A server without a cluster, from one file: listeners, routes and backends become a routing table, and again whenever the
//! file changes.
//!
//! `document` reads YAML, JSON and TOML into one tree that knows places, [`config`] says which keys there are, [`build`] what
//! they come to, [`source`] and [`named_backends`] where they come from, [`run`] keeps a table published, [`cases`] tests rules without serving.
//! Nothing here knows of Kubernetes or of how requests are served.

pub mod build;
pub mod cases;
mod certificate;
pub mod config;
mod dns_name;
mod document;
mod endpoint_line;
mod file;
mod metrics;
pub mod named_backends;
pub mod problem;
pub mod run;
pub mod source;

pub use build::{Defaults, Translation};
pub use metrics::Metrics;
pub use problem::Problem;
pub use run::{Options, run};
pub use source::LoadError;
