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
    /// The kind that it would be of with another `apiVersion`, or but for a slip of the pen: its owner expects it to be served.
    pub fn meant(&self) -> Option<Kind> {
        let of_another_version = |kind: &Kind| kind.as_str() == self.kind;
        let mut all = Kind::ALL.into_iter();
        all.find(of_another_version).or_else(|| {
            let mut all = Kind::ALL.into_iter();
            all.find(|kind| {
                kind.api_version() == self.api_version
                    && near(&kind.as_str().to_lowercase(), &self.kind.to_lowercase())
            })
        })
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key, version) = (&self.kind, &self.key, &self.api_version);
        write!(f, "{kind} ")?;
        if !key.name.is_empty() {
            write!(f, "{key} ")?;
        }
        match self.meant() {
            Some(meant) if meant.as_str() != self.kind => write!(
                f,
                "is not read: {version} has no such kind; did you mean {}?",
                meant.as_str()
            ),
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

/// Whether one is the other but for two letters.
fn near(known: &str, word: &str) -> bool {
    word.len() <= known.len() + 2 && strsim::damerau_levenshtein(known, word) <= 2
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

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(api_version: &str, kind: &str) -> Skipped {
        Skipped {
            origin: Origin {
                file: "a.yaml".into(),
                line: 1,
            },
            api_version: api_version.into(),
            kind: kind.into(),
            key: ObjectKey::new("default", "web"),
        }
    }

    #[test]
    fn a_kind_that_was_mistyped_is_told_from_those_of_others() {
        let v1 = "networking.k8s.io/v1";
        for (version, kind, meant) in [
            (v1, "Ingres", Some(Kind::Ingress)),
            (v1, "ingress", Some(Kind::Ingress)),
            ("extensions/v1beta1", "Ingress", Some(Kind::Ingress)),
            (v1, "NetworkPolicy", None),
            ("v1", "ServiceAccount", None),
            ("resource.k8s.io/v1", "Device", None),
            ("v1", "Sevrice", Some(Kind::Service)),
        ] {
            assert_eq!(skipped(version, kind).meant(), meant, "{version} {kind}");
        }
        assert_eq!(
            skipped(v1, "Ingres").to_string(),
            "Ingres default/web is not read: networking.k8s.io/v1 has no such kind; did you mean Ingress?"
        );
    }
}
