//! TLS on listeners: which certificate answers which server name, hot-swapped with the table.

use crate::publish::Current;
use arc_swap::Guard;
use routing_table::matcher::host::{normal_host, parent};
use routing_table::{Certificate, ListenerId, TlsSettings};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The certificates of one listener, ready to sign.
#[derive(Debug)]
pub(crate) struct ListenerCertificates {
    exact: HashMap<Box<str>, Arc<Loaded>>,
    wildcard: HashMap<Box<str>, Arc<Loaded>>,
    default: Arc<CertifiedKey>,
    default_source: Option<Arc<Certificate>>,
}

/// A certificate with what rustls made of it.
#[derive(Debug)]
struct Loaded {
    source: Arc<Certificate>,
    key: Arc<CertifiedKey>,
}

/// A self-signed certificate made at start, for clients that no other fits.
#[derive(Debug)]
pub(crate) struct FallbackCertificate(Arc<CertifiedKey>);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The fallback certificate cannot be made.
    #[error("cannot generate the default certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// rustls refuses the settings.
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

impl FallbackCertificate {
    /// Makes one. It names no host, so no client can take it for a real one.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(vec!["tidegate.invalid".to_owned()])?;
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Tidegate default certificate");
        let certificate = parameters.self_signed(&key)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = default_provider().key_provider.load_private_key(key)?;
        Ok(Self(Arc::new(CertifiedKey::new(
            vec![certificate.der().clone()],
            signer,
        ))))
    }
}

/// Loads the certificates of a listener; what `previous` has loaded already is taken over.
pub(crate) fn certificates(
    settings: &TlsSettings,
    previous: Option<&Arc<ListenerCertificates>>,
    fallback: &FallbackCertificate,
) -> Arc<ListenerCertificates> {
    let mut loaded: HashMap<*const Certificate, Arc<Loaded>> = HashMap::new();
    if let Some(previous) = previous {
        let before = previous.exact.values().chain(previous.wildcard.values());
        loaded.extend(before.map(|one| (Arc::as_ptr(&one.source), Arc::clone(one))));
    }
    let mut exact = HashMap::new();
    let mut wildcard = HashMap::new();
    for (host, certificate) in settings.certificates.iter() {
        let one = match loaded.get(&Arc::as_ptr(certificate)) {
            Some(one) => Arc::clone(one),
            None => match load(certificate) {
                Ok(key) => {
                    let one = Arc::new(Loaded {
                        source: Arc::clone(certificate),
                        key,
                    });
                    loaded.insert(Arc::as_ptr(certificate), Arc::clone(&one));
                    one
                }
                Err(error) => {
                    tracing::error!(source = %certificate.source, %error, "certificate cannot be used");
                    continue;
                }
            },
        };
        match host {
            routing_table::HostMatch::Exact(name) => drop(exact.insert(name, one)),
            routing_table::HostMatch::Wildcard(suffix) => drop(wildcard.insert(suffix, one)),
            routing_table::HostMatch::Any => {}
        }
    }
    let default_source = settings.default_certificate.clone();
    let default = match (&default_source, previous) {
        (Some(source), Some(previous))
            if previous
                .default_source
                .as_ref()
                .is_some_and(|p| Arc::ptr_eq(p, source)) =>
        {
            Arc::clone(&previous.default)
        }
        (Some(source), _) => load(source).unwrap_or_else(|error| {
            tracing::error!(source = %source.source, %error, "default certificate cannot be used");
            Arc::clone(&fallback.0)
        }),
        (None, _) => Arc::clone(&fallback.0),
    };
    Arc::new(ListenerCertificates {
        exact,
        wildcard,
        default,
        default_source,
    })
}

fn load(certificate: &Certificate) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let signer = default_provider()
        .key_provider
        .load_private_key(certificate.key.clone_key())?;
    Ok(Arc::new(CertifiedKey::new(
        certificate.chain.clone(),
        signer,
    )))
}

impl ListenerCertificates {
    /// The certificate for a server name: exact, one wildcard label, the default.
    fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let normal = name.and_then(|name| normal_host(name).ok());
        let found = normal.as_deref().and_then(|name| {
            self.exact
                .get(name)
                .or_else(|| self.wildcard.get(parent(name)?))
        });
        found.map_or_else(|| Arc::clone(&self.default), |one| Arc::clone(&one.key))
    }
}

/// What the TLS listeners of a process share.
pub(crate) struct ServerTls {
    current: Current,
    provider: Arc<CryptoProvider>,
    /// One for all listeners and workers, so that a client may resume wherever its next connection lands.
    tickets: Arc<dyn ProducesTickets>,
    fallback: FallbackCertificate,
}

impl ServerTls {
    /// Makes the fallback certificate and the ticket keys.
    ///
    /// # Errors
    /// When there is no randomness to make keys of.
    pub(crate) fn new(current: Current) -> Result<Self, TlsError> {
        let fallback = FallbackCertificate::generate()?;
        Ok(Self {
            current,
            provider: Arc::new(default_provider()),
            tickets: Ticketer::new()?,
            fallback,
        })
    }

    /// The certificate for clients that no other fits.
    pub(crate) fn fallback(&self) -> &FallbackCertificate {
        &self.fallback
    }

    /// The TLS settings of a listener. Made once: certificates are looked up in the current table at each handshake.
    pub(crate) fn server_config(
        &self,
        listener: ListenerId,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let resolver = Resolver {
            current: Arc::clone(&self.current),
            listener,
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&self.tickets);
        config.send_tls13_tickets = 1;
        // Tickets are all we need; the cache would be a lock and memory per client.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

struct Resolver {
    current: Current,
    listener: ListenerId,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot: Guard<Arc<crate::publish::Snapshot>> = self.current.load();
        Some(
            snapshot
                .certificates(&self.listener)?
                .find(hello.server_name()),
        )
    }
}
