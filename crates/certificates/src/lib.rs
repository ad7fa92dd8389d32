//! PEM becomes certificates, wherever it came from: read, strong enough, and chain and key checked to belong together.
//!
//! Where PEM is found, and what becomes of a bad one, is for who has it.

use routing_table::{Certificate, HostMatch};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

/// Shortest RSA key, in bits.
const LEAST_RSA: usize = 2048;

/// Reads a chain, leaf first, and the key of its leaf. `chain_name` and `key_name` are what errors call them, `source` where the
/// certificate came from.
///
/// # Errors
/// What is wrong, as a sentence without its end.
pub fn pair(
    chain_pem: &[u8],
    key_pem: &[u8],
    chain_name: impl Display,
    key_name: impl Display,
    source: Arc<str>,
) -> Result<Certificate, String> {
    let chain = chain(chain_pem, &chain_name)?;
    let leaf = chain
        .first()
        .ok_or_else(|| format!("{chain_name} holds no certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("{key_name} holds no PEM private key"),
        error => damaged(&key_name, &error),
    })?;
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|_| format!("the first certificate of {chain_name} cannot be read"))?;
    if let Ok(PublicKey::RSA(rsa)) = parsed.public_key().parsed()
        && rsa.key_size() < LEAST_RSA
    {
        return Err(format!(
            "its RSA key has {} bits, {LEAST_RSA} are the least",
            rsa.key_size()
        ));
    }
    let not_after = parsed.validity().not_after.timestamp();
    let signer = default_provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|_| format!("{key_name} is of a kind that is not supported"))?;
    if parsed.version() != X509Version::V3 {
        return Err(format!(
            "its certificate is of X.509 version {}, version 3 is needed",
            parsed.version().0 + 1
        ));
    }
    CertifiedKey::new(chain.clone(), signer)
        .keys_match()
        .map_err(|_| format!("{key_name} does not belong to {chain_name}"))?;
    Ok(Certificate {
        source,
        chain,
        key,
        ocsp: None,
        not_after,
    })
}

/// Reads certificates; there may be none.
///
/// # Errors
/// When it is no PEM.
pub fn chain(pem: &[u8], name: impl Display) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(&name, &error))
}

/// What is wrong with PEM, in words for who has copied it.
fn damaged(name: &impl Display, error: &pem::Error) -> String {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it is cut off: a BEGIN line has no END line".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is damaged".to_owned(),
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is damaged".to_owned(),
        other => other.to_string(),
    };
    format!("{name} is not PEM: {why}")
}

/// The host names that the first certificate of a chain is for (`subjectAltName`); none if it cannot be read.
pub fn names(chain: &[CertificateDer<'_>]) -> Vec<HostMatch> {
    let Some(leaf) = chain.first() else {
        return Vec::new();
    };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => HostMatch::parse(name).ok(),
        _ => None,
    };
    let names = names.value.general_names.iter().filter_map(name);
    // An empty name is no name, and would stand for all.
    names.filter(|name| *name != HostMatch::Any).collect()
}

/// Whether one of the names of a certificate is for this host.
pub fn covers(names: &[HostMatch], host: &HostMatch) -> bool {
    names.iter().any(|name| match (name, host) {
        (HostMatch::Any, _) | (_, HostMatch::Any) => false,
        (name, HostMatch::Exact(host)) => name.matches(host),
        (name, wildcard) => name == wildcard,
    })
}
