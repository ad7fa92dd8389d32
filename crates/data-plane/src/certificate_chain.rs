//! Whether a chain of certificates leads to an authority: the one check for clients and for upstreams.
//!
//! webpki's search is bounded (signatures, depth, name constraints), so a chain made to be expensive costs little.

use routing_table::Authorities;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// Certificates that are looked at in one chain, the leaf included. No real chain is longer.
pub(crate) const MAX_CHAIN: usize = 10;

/// Whom to believe, made ready once.
#[derive(Debug)]
pub(crate) struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    depth: u8,
}

impl Trust {
    /// Reads authorities and revocation lists.
    ///
    /// # Errors
    /// When one of them cannot be read: to leave it out could let somebody in.
    pub(crate) fn new(authorities: &Authorities, depth: u8) -> Result<Self, Error> {
        let anchors = authorities
            .certificates
            .iter()
            .map(|der| Ok(webpki::anchor_from_trusted_cert(der)?.to_owned()))
            .collect::<Result<_, Error>>()?;
        let revoked = authorities
            .revoked
            .iter()
            .map(|der| Ok(OwnedCertRevocationList::from_der(der)?.into()))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            anchors,
            revoked,
            depth,
        })
    }

    /// Believes nobody.
    pub(crate) fn none() -> Self {
        Self {
            anchors: Vec::new(),
            revoked: Vec::new(),
            depth: 0,
        }
    }

    /// The names of the authorities, in DER.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.subject.as_ref())
    }

    /// Whether a chain, leaf first, is good for `usage` at `now`.
    pub(crate) fn check(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), Error> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(Error::MaximumPathDepthExceeded);
        }
        let revoked: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // Fails only for an empty list, which means that nothing is revoked.
        let revocation = RevocationOptionsBuilder::new(&revoked).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let depth = usize::from(self.depth);
        let shallow = |path: &webpki::VerifiedPath<'_>| {
            if path.intermediate_certificates().count() <= depth {
                Ok(())
            } else {
                Err(Error::MaximumPathDepthExceeded)
            }
        };
        leaf.verify_for_usage(
            default_provider().signature_verification_algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            revocation,
            Some(&shallow),
        )?;
        Ok(())
    }
}

/// What is wrong, in the words that OpenSSL has for it where there are any: upstreams compare them.
pub(crate) fn reason(error: &Error) -> &'static str {
    match error {
        Error::UnknownIssuer => "unable to get local issuer certificate",
        Error::CaUsedAsEndEntity => "self-signed certificate",
        Error::CertExpired { .. } => "certificate has expired",
        Error::CertNotValidYet { .. } => "certificate is not yet valid",
        Error::CertRevoked => "certificate revoked",
        Error::CrlExpired { .. } => "CRL has expired",
        Error::UnknownRevocationStatus => "unable to get certificate CRL",
        Error::RequiredEkuNotFoundContext(_) => "unsuitable certificate purpose",
        Error::MaximumPathDepthExceeded => "certificate chain too long",
        Error::PathLenConstraintViolated => "path length constraint exceeded",
        Error::NameConstraintViolation => "permitted subtree violation",
        Error::InvalidSignatureForPublicKey => "certificate signature failure",
        Error::CertNotValidForName(_) => "hostname mismatch",
        _ => "invalid certificate",
    }
}
