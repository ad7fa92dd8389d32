//! Certificates and authorities from PEM files. What makes a good one is in `certificates`.

use crate::file::{self, MAX_PEM};
use routing_table::{Authorities, Certificate};
use std::path::Path;

/// What authorities are called that come from no file.
pub(crate) const SYSTEM: &str = "the system";

/// Reads a chain and its key.
///
/// # Errors
/// What is wrong, with the file.
pub(crate) fn read_pair(chain_file: &Path, key_file: &Path) -> Result<Certificate, String> {
    let (chain, key) = (read(chain_file)?, read(key_file)?);
    let shown = chain_file.display();
    let source = shown.to_string().into();
    certificates::pair(&chain, &key, shown, key_file.display(), source)
}

/// Reads authorities.
///
/// # Errors
/// What is wrong, with the file.
pub(crate) fn read_authorities(file: &Path) -> Result<Authorities, String> {
    let certificates = certificates::chain(&read(file)?, file.display())?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", file.display()));
    }
    Ok(Authorities {
        source: file.display().to_string().into(),
        certificates,
        revoked: Vec::new(),
    })
}

/// The authorities of this machine, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
///
/// # Errors
/// When there are none.
pub(crate) fn system_authorities() -> Result<Authorities, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut certificates = found.certs;
    // Such a store has what nobody can use any more; that takes nothing from the others.
    certificates.retain(|one| webpki::anchor_from_trusted_cert(one).is_ok());
    if certificates.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(|| "there are none".to_owned(), |error| error.to_string());
        return Err(format!(
            "the authorities of this system cannot be used: {why}"
        ));
    }
    Ok(Authorities {
        source: SYSTEM.into(),
        certificates,
        revoked: Vec::new(),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    file::read(file, MAX_PEM).map_err(|reason| format!("cannot read {}: {reason}", file.display()))
}
