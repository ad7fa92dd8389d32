//! TLS towards the endpoints of a cluster, as data.

use crate::certificate::Certificate;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::fmt;
use std::sync::Arc;

/// How TLS is spoken to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// DNS name or IP address that an endpoint must prove to have, where it must prove anything.
    pub server_name: Arc<str>,
    /// Send the name in the handshake (SNI).
    pub send_server_name: bool,
    /// Whom to believe. `None`: everybody, so that TLS protects from those who only listen.
    pub verify: Option<Arc<UpstreamAuthorities>>,
    /// What we show when an endpoint asks.
    pub client_certificate: Option<Arc<Certificate>>,
    /// Versions to offer.
    pub versions: TlsVersions,
}

/// Who may have issued the certificate of an endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamAuthorities {
    /// Where they came from, for logs and status.
    pub source: Arc<str>,
    /// The authorities.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What they have revoked. If there is any list, every authority in a chain needs a current one.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Most intermediate certificates between an endpoint's and an authority.
    pub depth: u8,
}

impl fmt::Debug for UpstreamAuthorities {
    /// Leaves out the certificates themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamAuthorities")
            .field("source", &self.source)
            .field("authorities", &self.authorities.len())
            .field("revoked", &self.revoked.len())
            .field("depth", &self.depth)
            .finish()
    }
}

/// Versions of TLS; at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}
