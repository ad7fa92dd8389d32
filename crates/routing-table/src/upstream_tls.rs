//! TLS towards the endpoints of a cluster, as data.

use crate::authorities::Authorities;
use crate::certificate::Certificate;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// How TLS is spoken to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// DNS name or IP address that an endpoint must prove to have, where it must prove anything.
    pub server_name: Arc<str>,
    /// The same of endpoints that have a name of their own. Default: none has.
    pub own_names: BTreeMap<SocketAddr, Arc<str>>,
    /// Send the name in the handshake (SNI).
    pub send_server_name: bool,
    /// Whom to believe. `None`: everybody, so that TLS protects from those who only listen.
    pub verify: Option<UpstreamVerify>,
    /// What we show when an endpoint asks.
    pub client_certificate: Option<Arc<Certificate>>,
    /// Versions to offer.
    pub versions: TlsVersions,
}

/// Who may have issued the certificate of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamVerify {
    /// The authorities.
    pub authorities: Arc<Authorities>,
    /// Most intermediate certificates between an endpoint's and an authority.
    pub depth: u8,
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
