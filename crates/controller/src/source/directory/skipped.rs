//! Objects in manifests that are not read: of another version of a kind we read, or of another kind.

use super::Origin;
use std::collections::BTreeMap;
use std::fmt;
use translate::{Kind, ObjectKey};

/// An object that is not read. Its text says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Where it stands.
    pub origin: Origin,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Its namespace and name; either may be empty.
    pub key: ObjectKey,
}

impl Skipped {
    /// The kind that it would be of with another `apiVersion`: its owner expects it to be served.
    pub fn meant(&self) -> Option<Kind> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.as_str() == self.kind)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key, version) = (&self.kind, &self.key, &self.api_version);
        write!(f, "{kind} {key} ")?;
        match self.meant() {
            Some(meant) => {
                let read = meant.api_version();
                write!(
                    f,
                    "is not read: it is of {version}, and only {read} is; write it as that \
                     (kubectl convert -f FILE --output-version {read})"
                )
            }
            None => write!(f, "({version}) is not of a kind that is read"),
        }
    }
}

/// The kinds of what is skipped, each with how often it is there: `apps/v1 Deployment (3), v1 Pod`.
pub fn kinds(skipped: &[Skipped]) -> String {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for one in skipped {
        *counts.entry((&one.api_version, &one.kind)).or_default() += 1;
    }
    let shown = counts.iter().map(|((version, kind), count)| match count {
        1 => format!("{version} {kind}"),
        count => format!("{version} {kind} ({count})"),
    });
    shown.collect::<Vec<_>>().join(", ")
}
