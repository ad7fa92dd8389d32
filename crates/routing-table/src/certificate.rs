//! Certificates as data, and which of them answers a server name.

use crate::matcher::HostMatch;
use crate::matcher::host::parent;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A certificate chain with its private key, already checked to belong together.
pub struct Certificate {
    /// Where it came from, for logs and status: for example `Secret shop/tls`.
    pub source: Arc<str>,
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// An OCSP response to send along, in DER (RFC 6961).
    pub ocsp: Option<Vec<u8>>,
    /// End of validity of the leaf, seconds since 1970.
    pub not_after: i64,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
            && self.key.secret_der() == other.key.secret_der()
            && self.source == other.source
            && self.ocsp == other.ocsp
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("source", &self.source)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Finds the certificate for a server name: exact names first, then one wildcard label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SniIndex {
    exact: HashMap<Box<str>, Arc<Certificate>>,
    wildcard: HashMap<Box<str>, Arc<Certificate>>,
}

impl SniIndex {
    /// Answers `host` with `certificate`. The first certificate given for a host stays; returns whether this one was taken.
    /// [`HostMatch::Any`] is not a server name and is never taken.
    pub fn add(&mut self, host: &HostMatch, certificate: &Arc<Certificate>) -> bool {
        let (map, name) = match host {
            HostMatch::Exact(name) => (&mut self.exact, name),
            HostMatch::Wildcard(suffix) => (&mut self.wildcard, suffix),
            HostMatch::Any => return false,
        };
        match map.entry(name.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(certificate.clone());
                true
            }
        }
    }

    /// The certificate for a server name in normal form (see [`crate::matcher::host::normal_host`]).
    pub fn find(&self, name: &str) -> Option<&Arc<Certificate>> {
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(parent(name)?))
    }

    /// All names and their certificates, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (HostMatch, &Arc<Certificate>)> {
        let exact = self
            .exact
            .iter()
            .map(|(name, c)| (HostMatch::Exact(name.clone()), c));
        let wildcard = self
            .wildcard
            .iter()
            .map(|(name, c)| (HostMatch::Wildcard(name.clone()), c));
        let mut all: Vec<_> = exact.chain(wildcard).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter()
    }
}
