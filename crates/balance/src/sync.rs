//! Atomics: the standard library's, or, with `--cfg loom`, those of a model checker that tries every interleaving of a few
//! threads (`tests/interleavings.rs`; `cargo xtask test` runs them).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
