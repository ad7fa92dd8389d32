//! Certificates and authorities from PEM files: read, and chain and key checked to belong together.

use crate::file::{self, MAX_PEM};
use routing_table::{Authorities, Certificate};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Reads a chain and its key.
///
/// # Errors
/// What is wrong, with the file.
pub(crate) fn read_pair(chain_file: &Path, key_file: &Path) -> Result<Certificate, String> {
    let shown = chain_file.display();
    let chain = chain(chain_file)?;
    let key_pem = read(key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| format!("{} holds no PEM private key", key_file.display()))?;
    let leaf = chain
        .first()
        .ok_or_else(|| format!("{shown} holds no certificate"))?;
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|_| format!("the first certificate of {shown} cannot be read"))?;
    let not_after = parsed.validity().not_after.timestamp();
    let signer = default_provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|_| format!("{} is of a kind that is not supported", key_file.display()))?;
    CertifiedKey::new(chain.clone(), signer)
        .keys_match()
        .map_err(|_| format!("{} does not belong to {shown}", key_file.display()))?;
    Ok(Certificate {
        source: chain_file.display().to_string().into(),
        chain,
        key,
        ocsp: None,
        not_after,
    })
}

/// Reads authorities.
///
/// # Errors
/// What is wrong, with the file.
pub(crate) fn read_authorities(file: &Path) -> Result<Authorities, String> {
    let certificates = chain(file)?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", file.display()));
    }
    Ok(Authorities {
        source: file.display().to_string().into(),
        certificates,
        revoked: Vec::new(),
    })
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(file)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{} is not PEM", file.display()))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    file::read(file, MAX_PEM).map_err(|reason| format!("cannot read {}: {reason}", file.display()))
}
