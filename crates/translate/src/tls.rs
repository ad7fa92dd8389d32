//! Which certificate answers which server name.

use crate::certificate::{Loaded, has_bad_ocsp};
use crate::conflict::HostOwners;
use crate::diagnostic::Findings;
use crate::settings::Settings;
use crate::snapshot::{Kind, ObjectKey, ObjectRef, Snapshot};
use certificates::{covers, names};
use k8s_openapi::api::networking::v1::Ingress;
use routing_table::{Certificate, HostMatch, SniIndex, TlsSettings};
use std::sync::Arc;

/// The TLS settings of the HTTPS listener. `ingresses` come oldest first: the oldest wins a name.
pub(crate) fn settings(
    snapshot: &Snapshot,
    settings: &Settings,
    ingresses: &[(&Arc<Ingress>, ObjectRef)],
    owners: &mut HostOwners,
    findings: &mut Findings,
) -> TlsSettings {
    settings
        .certificates
        .keep(|key| snapshot.secrets.contains_key(key));
    settings
        .authorities
        .keep(|key| snapshot.secrets.contains_key(key));
    let mut certificates = SniIndex::default();
    for (ingress, object) in ingresses {
        add_ingress(
            snapshot,
            settings,
            ingress,
            object,
            owners,
            &mut certificates,
            findings,
        );
    }
    let default_certificate = settings.default_certificate.as_ref().and_then(|key| {
        let object = ObjectRef {
            kind: Kind::Secret,
            key: key.clone(),
            uid: String::new(),
        };
        secret(snapshot, settings, key, &object, "", findings)
    });
    TlsSettings {
        certificates,
        default_certificate,
        ..TlsSettings::default()
    }
}

fn add_ingress(
    snapshot: &Snapshot,
    settings: &Settings,
    ingress: &Ingress,
    object: &ObjectRef,
    owners: &mut HostOwners,
    certificates: &mut SniIndex,
    findings: &mut Findings,
) {
    let Some(spec) = &ingress.spec else { return };
    for (position, tls) in spec.tls.iter().flatten().enumerate() {
        let field = format!("spec.tls[{position}]");
        // No Secret: the default certificate is meant.
        let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if name.contains('/') {
            let message =
                "a Secret of another namespace cannot be used; the default certificate answers"
                    .to_owned();
            findings.error(
                object,
                &format!("{field}.secretName"),
                "RefNotPermitted",
                message,
            );
            continue;
        }
        let key = ObjectKey::new(&object.key.namespace, name);
        let Some(certificate) = secret(
            snapshot,
            settings,
            &key,
            object,
            &format!("{field}.secretName"),
            findings,
        ) else {
            continue;
        };
        let patterns = names(&certificate.chain);
        let hosts = match tls.hosts.as_deref() {
            Some(hosts) if !hosts.is_empty() => hosts.to_vec(),
            _ => covered_hosts(ingress, &patterns),
        };
        for (index, host) in hosts.iter().enumerate() {
            let field = format!("{field}.hosts[{index}]");
            let host = match HostMatch::parse(host) {
                Ok(HostMatch::Any) => continue,
                Ok(host) => host,
                Err(error) => {
                    findings.error(
                        object,
                        &field,
                        "InvalidHost",
                        format!("{error}; it gets no certificate"),
                    );
                    continue;
                }
            };
            if !covers(&patterns, &host) {
                let message = format!(
                    "the certificate of Secret {key} is not for {host}; it is used all the same, and clients refuse it"
                );
                findings.warning(object, &field, "CertificateHostMismatch", message);
            }
            match owners.claim(&host, &object.key.namespace) {
                Ok(()) => drop(certificates.add(&host, &certificate)),
                Err(owner) => {
                    let message = format!(
                        "{host} belongs to namespace {owner}; this certificate is not used for it"
                    );
                    findings.error(object, &field, "HostConflict", message);
                }
            }
        }
    }
}

/// The hosts that an Ingress has TLS for, with a certificate of its own or the default one.
pub(crate) fn hosts(
    snapshot: &Snapshot,
    settings: &Settings,
    ingress: &Ingress,
    object: &ObjectRef,
) -> Vec<HostMatch> {
    let mut all = Vec::new();
    for tls in ingress
        .spec
        .iter()
        .flat_map(|spec| spec.tls.iter().flatten())
    {
        let named = tls.hosts.as_deref().unwrap_or_default();
        let hosts = match tls.secret_name.as_deref() {
            Some(name) if named.is_empty() && !name.contains('/') => {
                let key = ObjectKey::new(&object.key.namespace, name);
                // What is wrong with it is said where the certificate is used.
                let findings = &mut Findings::default();
                let certificate = secret(snapshot, settings, &key, object, "", findings);
                certificate.map_or(Vec::new(), |one| covered_hosts(ingress, &names(&one.chain)))
            }
            _ => named.to_vec(),
        };
        let parsed = hosts.iter().filter_map(|host| HostMatch::parse(host).ok());
        all.extend(parsed.filter(|host| *host != HostMatch::Any));
    }
    all
}

/// Without `hosts`, an entry is for those hosts of the Ingress's own rules that the certificate names.
fn covered_hosts(ingress: &Ingress, patterns: &[HostMatch]) -> Vec<String> {
    let rules = ingress
        .spec
        .iter()
        .flat_map(|spec| spec.rules.iter().flatten());
    let hosts = rules.filter_map(|rule| rule.host.as_deref());
    hosts
        .filter(|host| HostMatch::parse(host).is_ok_and(|host| covers(patterns, &host)))
        .map(str::to_owned)
        .collect()
}

/// The certificate of a Secret, with whatever is wrong said on `object`.
fn secret(
    snapshot: &Snapshot,
    settings: &Settings,
    key: &ObjectKey,
    object: &ObjectRef,
    field: &str,
    findings: &mut Findings,
) -> Option<Arc<Certificate>> {
    let Some(secret) = snapshot.secrets.get(key) else {
        let message = format!(
            "Secret {key} does not exist or is not of type kubernetes.io/tls; the default certificate answers"
        );
        findings.error(object, field, "SecretNotFound", message);
        return None;
    };
    if has_bad_ocsp(secret) {
        let message = format!("Secret {key}: tls.ocsp-staple is no OCSP response; none is sent");
        findings.warning(object, field, "InvalidOcspStaple", message);
    }
    match settings.certificates.load(key, secret) {
        Loaded::Good(certificate) => Some(certificate),
        Loaded::Stale(certificate, reason) => {
            findings.error(
                object,
                field,
                "InvalidCertificate",
                format!("Secret {key}: {reason}; its last good certificate is kept"),
            );
            Some(certificate)
        }
        Loaded::Bad(reason) => {
            findings.error(
                object,
                field,
                "InvalidCertificate",
                format!("Secret {key}: {reason}; the default certificate answers"),
            );
            None
        }
    }
}
