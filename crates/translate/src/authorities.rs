//! Secrets that say whom to believe, and how they come to demands for client certificates and TLS towards endpoints.
//!
//! A Secret that cannot be used closes what it should protect. Unlike a server's certificate, the last good one is not
//! kept: an authority may have been taken out because it must not count any more.

use crate::annotation::Policy;
use crate::certificate::read_pair;
use crate::diagnostic::Findings;
use crate::settings::Settings;
use crate::snapshot::{ObjectKey, ObjectRef, Snapshot};
use k8s_openapi::api::core::v1::Secret;
use routing_table::{Authorities, Certificate, ClientCertificates, UpstreamTls, UpstreamVerify};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Why routes answer 503, for the access log.
const CLIENT_FLAG: &str = "client_certificates_unavailable";
const UPSTREAM_FLAG: &str = "upstream_tls_unavailable";

/// What an Ingress demands of the clients of its hosts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Demand {
    Nothing,
    Certificates(Arc<ClientCertificates>),
    /// It cannot be had, so the hosts answer 503.
    Closed(&'static str),
}

/// Reads what an Ingress demands of its clients.
pub(crate) fn demand(
    snapshot: &Snapshot,
    settings: &Settings,
    policy: &Policy,
    object: &ObjectRef,
    findings: &mut Findings,
) -> Demand {
    let wish = &policy.client_certificates;
    if policy.hosts_closed {
        return Demand::Closed(policy.closed.unwrap_or(CLIENT_FLAG));
    }
    let Some(demand) = wish.demand else {
        return Demand::Nothing;
    };
    let Some(name) = &wish.secret else {
        if wish.demand_is_set {
            let field = policy.field("client-certificate");
            let message = "client certificates are demanded, but no Secret says from whom; its hosts answer 503";
            findings.error(object, &field, "SecretNotFound", message.to_owned());
            return Demand::Closed(CLIENT_FLAG);
        }
        return Demand::Nothing;
    };
    let made = secret(snapshot, &object.key.namespace, name).and_then(|(key, secret)| {
        Ok(ClientCertificates {
            authorities: settings.authorities.load(&key, secret)?,
            demand,
            depth: wish.depth,
            pass_certificate: wish.pass_certificate,
        })
    });
    match made {
        Ok(made) => Demand::Certificates(Arc::new(made)),
        Err((reason, message)) => {
            let message = format!("{message}; its hosts answer 503");
            let field = policy.field("client-ca-secret");
            findings.error(object, &field, reason, message);
            Demand::Closed(CLIENT_FLAG)
        }
    }
}

/// What an Ingress says of TLS towards its endpoints; the name is that of the Service unless one was given.
#[derive(Debug)]
pub(crate) struct UpstreamPlan {
    tls: UpstreamTls,
    named: bool,
    /// Tells its clusters from those of other Ingresses with other settings.
    variant: Arc<str>,
}

impl UpstreamPlan {
    /// Says once that its endpoints are not verified, where they are not.
    pub(crate) fn warn_of_trust(
        &self,
        policy: &Policy,
        object: &ObjectRef,
        findings: &mut Findings,
    ) {
        if self.tls.verify.is_none() {
            let message = "endpoints do not prove who they are, so whoever is in between can read along; upstream-tls-verify demands it";
            let field = policy.field("backend-protocol");
            findings.warning(object, &field, "UpstreamNotVerified", message.to_owned());
        }
    }

    /// The settings for the endpoints of a Service, and what tells the cluster from others of that Service.
    pub(crate) fn for_service(&self, namespace: &str, service: &str) -> (UpstreamTls, Arc<str>) {
        let mut tls = self.tls.clone();
        if !self.named {
            tls.server_name = format!("{service}.{namespace}.svc").into();
        }
        (tls, Arc::clone(&self.variant))
    }
}

/// Reads how TLS is to be spoken to endpoints. `Ok(None)`: not at all.
///
/// # Errors
/// With the word for the access log, when it cannot be had as it should be.
pub(crate) fn upstream(
    snapshot: &Snapshot,
    settings: &Settings,
    policy: &Policy,
    object: &ObjectRef,
    findings: &mut Findings,
) -> Result<Option<UpstreamPlan>, &'static str> {
    let wish = &policy.upstream_tls;
    let mut closed = |annotation: &str, reason, message: String| {
        let field = policy.field(annotation);
        let message = format!("{message}; its routes answer 503");
        findings.error(object, &field, reason, message);
        Err(UPSTREAM_FLAG)
    };
    if !wish.https {
        if wish.verify {
            let message = "endpoints are to be verified, but backend-protocol is not HTTPS";
            return closed("upstream-tls-verify", "InvalidAnnotation", message.into());
        }
        return Ok(None);
    }
    let mut tls = UpstreamTls {
        server_name: wish.name.as_deref().unwrap_or_default().into(),
        own_names: BTreeMap::new(),
        send_server_name: wish.send_name,
        verify: None,
        client_certificate: None,
        versions: wish.versions,
    };
    if let Some(name) = &wish.secret {
        let read = secret(snapshot, &object.key.namespace, name).and_then(|(key, secret)| {
            let verify = if wish.verify {
                Some(UpstreamVerify {
                    authorities: settings.authorities.load(&key, secret)?,
                    depth: wish.depth,
                })
            } else {
                None
            };
            Ok((verify, own_certificate(&key, secret)?))
        });
        match read {
            Ok((verify, own)) => (tls.verify, tls.client_certificate) = (verify, own),
            Err((reason, message)) => return closed("upstream-tls-secret", reason, message),
        }
    } else if wish.verify {
        let message = "endpoints are to be verified, but no Secret says by which authorities";
        return closed("upstream-tls-verify", "SecretNotFound", message.into());
    }
    let usual = wish.secret.is_none()
        && wish.name.is_none()
        && !wish.send_name
        && wish.versions == Default::default();
    let variant = if usual {
        "https".into()
    } else {
        format!("https by {}", object.key.name).into()
    };
    Ok(Some(UpstreamPlan {
        tls,
        named: wish.name.is_some(),
        variant,
    }))
}

/// A reason for the diagnostic, and what is wrong.
type Problem = (&'static str, String);

/// A Secret of the Ingress's own namespace, by `name` or `namespace/name`.
fn secret<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    written: &str,
) -> Result<(ObjectKey, &'a Arc<Secret>), Problem> {
    let name = match written.split_once('/') {
        None => written,
        Some((own, name)) if own == namespace => name,
        Some(_) => {
            let message = "a Secret of another namespace cannot be used".to_owned();
            return Err(("RefNotPermitted", message));
        }
    };
    let key = ObjectKey::new(namespace, name);
    match snapshot.secrets.get(&key) {
        Some(secret) => Ok((key, secret)),
        None => Err(("SecretNotFound", format!("Secret {key} does not exist"))),
    }
}

fn data<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    let bytes = secret.data.as_ref()?.get(name)?.0.as_slice();
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// Authorities by Secret. Parsing is not repeated while a Secret stays the same, and the value stays the same too, so that
/// whoever made something of it can keep that.
#[derive(Debug, Default)]
pub struct AuthorityCache {
    entries: Mutex<HashMap<ObjectKey, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: Arc<Secret>,
    result: Result<Arc<Authorities>, Problem>,
}

impl AuthorityCache {
    fn load(&self, key: &ObjectKey, secret: &Arc<Secret>) -> Result<Arc<Authorities>, Problem> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |entry: &&Entry| Arc::ptr_eq(&entry.secret, secret) || entry.secret.data == secret.data;
        if let Some(entry) = entries.get(key).filter(same) {
            return entry.result.clone();
        }
        let result = read(key, secret).map(Arc::new);
        let entry = Entry {
            secret: Arc::clone(secret),
            result: result.clone(),
        };
        entries.insert(key.clone(), entry);
        result
    }

    /// Forgets Secrets that are gone.
    pub(crate) fn keep(&self, wanted: impl Fn(&ObjectKey) -> bool) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|key, _| wanted(key));
    }
}

/// Authorities and what they revoked. One that cannot be read spoils all.
fn read(key: &ObjectKey, secret: &Secret) -> Result<Authorities, Problem> {
    let problem = |message: &str| ("InvalidCertificate", format!("Secret {key}: {message}"));
    let pem = data(secret, "ca.crt").ok_or_else(|| problem("it has no ca.crt"))?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| problem("ca.crt is not PEM"))?;
    if certificates.is_empty() {
        return Err(problem("ca.crt holds no certificate"));
    }
    for certificate in &certificates {
        webpki::anchor_from_trusted_cert(certificate)
            .map_err(|_| problem("a certificate of ca.crt cannot be read"))?;
    }
    let mut revoked = Vec::new();
    if let Some(pem) = data(secret, "ca.crl") {
        revoked = CertificateRevocationListDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| problem("ca.crl is not PEM"))?;
        if revoked.is_empty() {
            return Err(problem("ca.crl holds no list"));
        }
    }
    for list in &revoked {
        webpki::OwnedCertRevocationList::from_der(list)
            .map_err(|_| problem("a list of ca.crl cannot be read"))?;
    }
    Ok(Authorities {
        source: format!("Secret {key}").into(),
        certificates,
        revoked,
    })
}

fn own_certificate(key: &ObjectKey, secret: &Secret) -> Result<Option<Arc<Certificate>>, Problem> {
    if data(secret, "tls.crt").is_none() && data(secret, "tls.key").is_none() {
        return Ok(None);
    }
    match read_pair(key, secret) {
        Ok(certificate) => Ok(Some(Arc::new(certificate))),
        Err(reason) => Err(("InvalidCertificate", format!("Secret {key}: {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use k8s_openapi::ByteString;

    fn secret_of(pem: &str) -> Arc<Secret> {
        let data = ByteString(pem.as_bytes().to_vec());
        Arc::new(Secret {
            data: Some(BTreeMap::from([("ca.crt".to_owned(), data)])),
            ..Secret::default()
        })
    }

    #[test]
    fn what_stays_the_same_stays_the_same_value() {
        let pem = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::default();
            parameters.self_signed(&key).unwrap().pem()
        };
        let (one, two) = (pem(), pem());
        let (cache, key) = (AuthorityCache::default(), ObjectKey::new("shop", "ca"));
        let first = cache.load(&key, &secret_of(&one)).unwrap();
        let again = cache.load(&key, &secret_of(&one)).unwrap();
        assert!(
            Arc::ptr_eq(&first, &again),
            "read again from an equal Secret"
        );
        let other = cache.load(&key, &secret_of(&two)).unwrap();
        assert_ne!(first, other);
        // A Secret that has become bad is bad: what it held before may have been taken out on purpose.
        assert!(cache.load(&key, &secret_of("garbage")).is_err());
        cache.keep(|_| false);
        assert_eq!(cache.entries.lock().unwrap().len(), 0);
    }
}
