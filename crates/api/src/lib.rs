//! Our own kinds of objects (`tidegate.dev/v1alpha1`), and the `CustomResourceDefinition`s they are installed by.
//!
//! - [`backend_policy`]: how the endpoints of Services are chosen and judged.
//! - [`crd`]: the definitions, from the same types; `cargo xtask codegen` writes them to `crds/`.
//!
//! What the fields of a policy mean is not here: see `policy`.

pub mod backend_policy;
pub mod crd;

pub use backend_policy::{BackendPolicy, BackendPolicySpec, TargetRef};

/// Group of our kinds.
pub const GROUP: &str = "tidegate.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

#[cfg(test)]
mod tests;
