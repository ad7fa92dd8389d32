//! What a host demands of its clients' certificates, as data.

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::fmt;
use std::sync::Arc;

/// How client certificates are asked for and checked on one virtual host.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Where the authorities came from, for logs and status: for example `Secret shop/ca`.
    pub source: Arc<str>,
    /// What is demanded.
    pub demand: CertificateDemand,
    /// The authorities that may have issued a client's certificate.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What they have revoked. If there is any list, every authority in a chain needs a current one.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Most intermediate certificates between the client's and an authority. Default 1.
    pub depth: u8,
    /// Send the certificate upstream in `ssl-client-cert`. Default false.
    pub pass_certificate: bool,
}

/// What is demanded of a client, in the words of ingress-nginx's `auth-tls-verify-client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateDemand {
    /// `on`: a valid certificate.
    Required,
    /// `optional`: none, or a valid one.
    Optional,
    /// `optional_no_ca`: none, or one that is valid but for who issued it. The upstream judges.
    OptionalFromAnyone,
}

impl fmt::Display for CertificateDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::OptionalFromAnyone => "optional, from anyone",
        })
    }
}

impl fmt::Debug for ClientCertificates {
    /// Leaves out the certificates themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("source", &self.source)
            .field("demand", &self.demand)
            .field("authorities", &self.authorities.len())
            .field("revoked", &self.revoked.len())
            .field("depth", &self.depth)
            .field("pass_certificate", &self.pass_certificate)
            .finish()
    }
}
