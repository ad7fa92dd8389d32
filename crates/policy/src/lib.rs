//! The policy of a group of endpoints as people declare it: one set of fields, whether it stands in a `BackendPolicy`, in
//! annotations or in a file.
//!
//! - [`spec`]: the fields, with their ranges and defaults; the JSON Schema comes from them.
//! - [`value`]: what a field's text may be: a duration, a percentage, what is hashed.
//! - [`build`]: what the fields come to, and which do not go together.
//! - [`annotations`]: the same fields, one string each.
//!
//! A field that is not given is `None`, so that several declarations can be laid over each other ([`PolicySpec::over`])
//! before defaults are filled in.

pub mod annotations;
pub mod build;
pub mod spec;
pub mod value;

pub use build::{Built, Contradiction};
pub use spec::PolicySpec;

#[cfg(test)]
mod tests;
