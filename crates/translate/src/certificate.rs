//! Secrets become certificates. What makes a good one is in `certificates`.
//!
//! This is the one place of the translation with a memory, and it only ever helps: parsing is not repeated while a Secret
//! stays the same, and when a good Secret is replaced by a bad one the good certificate goes on serving.

use crate::snapshot::ObjectKey;
use k8s_openapi::api::core::v1::Secret;
use routing_table::Certificate;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The keys of a Secret's data that are read: chain and key of a certificate, an OCSP response to send along (DER),
/// authorities, and what these have revoked.
pub const SECRET_KEYS: [&str; 5] = ["tls.crt", "tls.key", OCSP, "ca.crt", "ca.crl"];

/// Where an OCSP response is.
const OCSP: &str = "tls.ocsp-staple";

/// Longest OCSP response, in bytes.
const MAX_OCSP: usize = 16 * 1024;

/// Certificates by Secret.
#[derive(Debug, Default)]
pub struct CertificateCache {
    entries: Mutex<HashMap<ObjectKey, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: Arc<Secret>,
    result: Result<Arc<Certificate>, String>,
    last_good: Option<Arc<Certificate>>,
}

/// What a Secret gives.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    /// A certificate.
    Good(Arc<Certificate>),
    /// Something is wrong, and the Secret was good before.
    Stale(Arc<Certificate>, String),
    /// Something is wrong.
    Bad(String),
}

impl CertificateCache {
    /// The certificate of a Secret.
    pub(crate) fn load(&self, key: &ObjectKey, secret: &Arc<Secret>) -> Loaded {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.remove(key);
        let entry = match known {
            Some(entry)
                if Arc::ptr_eq(&entry.secret, secret)
                    || entry.secret.data == secret.data && entry.secret.type_ == secret.type_ =>
            {
                entry
            }
            known => {
                let result = read(key, secret).map(Arc::new);
                let last_good = result
                    .as_ref()
                    .ok()
                    .cloned()
                    .or_else(|| known.and_then(|entry| entry.last_good));
                Entry {
                    secret: Arc::clone(secret),
                    result,
                    last_good,
                }
            }
        };
        let loaded = match (&entry.result, &entry.last_good) {
            (Ok(certificate), _) => Loaded::Good(Arc::clone(certificate)),
            (Err(reason), Some(last)) => Loaded::Stale(Arc::clone(last), reason.clone()),
            (Err(reason), None) => Loaded::Bad(reason.clone()),
        };
        entries.insert(key.clone(), entry);
        loaded
    }

    /// Forgets Secrets that are gone.
    pub(crate) fn keep(&self, wanted: impl Fn(&ObjectKey) -> bool) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|key, _| wanted(key));
    }
}

/// Whether the Secret holds an OCSP response that is none, and so is not sent.
pub(crate) fn has_bad_ocsp(secret: &Secret) -> bool {
    let data = secret.data.as_ref().and_then(|data| data.get(OCSP));
    data.is_some_and(|der| !der.0.is_empty() && !is_ocsp(&der.0))
}

/// Whether this can be an OCSP response: a sequence that begins with the status "successful" (RFC 6960 section 4.2.1).
fn is_ocsp(der: &[u8]) -> bool {
    let status = x509_parser::der_parser::parse_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty() && der.len() <= MAX_OCSP)
        .and_then(|(_, whole)| whole.as_sequence().ok()?.first()?.as_u32().ok());
    status == Some(0)
}

fn read(key: &ObjectKey, secret: &Secret) -> Result<Certificate, String> {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    if kind != "kubernetes.io/tls" {
        return Err(format!("its type is {kind:?}, not kubernetes.io/tls"));
    }
    read_pair(key, secret)
}

/// The chain and key of a Secret, whatever its type.
pub(crate) fn read_pair(key: &ObjectKey, secret: &Secret) -> Result<Certificate, String> {
    let data = |name: &str| {
        let bytes = secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .map(|bytes| bytes.0.as_slice());
        bytes
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| format!("it has no {name}"))
    };
    let (pem_chain, pem_key) = (data("tls.crt")?, data("tls.key")?);
    let source = format!("Secret {key}").into();
    let certificate = certificates::pair(pem_chain, pem_key, "tls.crt", "tls.key", source)?;
    let ocsp = data(OCSP).ok().filter(|der| is_ocsp(der));
    Ok(Certificate {
        ocsp: ocsp.map(<[u8]>::to_vec),
        ..certificate
    })
}
