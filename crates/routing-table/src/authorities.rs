//! Certificate authorities and what they have revoked, as data.

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::fmt;
use std::sync::Arc;

/// Whom to believe. Often large and named by many objects, so it is shared: consecutive tables have the same value for what
/// has not changed.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Where they came from, for logs and status: for example `Secret shop/ca`.
    pub source: Arc<str>,
    /// The authorities.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What they have revoked. If there is any list, every authority in a chain needs a current one.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl fmt::Debug for Authorities {
    /// Leaves out the certificates themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.certificates.is_empty() {
            // Nobody serves without them: this is a table that is only shown.
            return write!(f, "{}, not read", self.source);
        }
        write!(
            f,
            "{}, {} authorities, {} revocation lists",
            self.source,
            self.certificates.len(),
            self.revoked.len()
        )
    }
}
