//! Where objects come from. Every source sends [`Change`]s into one bounded channel; whole values, never deltas of fields.

pub mod directory;
pub mod kubernetes;

use translate::{Kind, Object, ObjectKey};

/// Something that happened to the objects of a source.
#[derive(Debug, Clone)]
pub enum Change {
    /// An object is new or different.
    Upsert(Object),
    /// An object is gone.
    Delete(Kind, ObjectKey),
    /// These are all objects of a kind. The first one of each kind says that the kind is known.
    Replace(Kind, Vec<Object>),
}
