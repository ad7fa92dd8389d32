//! What a host demands of its clients' certificates, as data.

use crate::authorities::Authorities;
use std::fmt;
use std::sync::Arc;

/// How client certificates are asked for and checked on one virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Who may have issued a client's certificate.
    pub authorities: Arc<Authorities>,
    /// What is demanded.
    pub demand: CertificateDemand,
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
