//! TLS on listeners: what is ready for the next handshake, made when a table is published and swapped in with it.
//!
//! For each server name there is a certificate and perhaps a demand for client certificates. What the table before had
//! already is taken over, so a swap costs only what changed, and sessions can be resumed across it.

use crate::Settings;
use crate::certificate_chain::Trust;
use crate::cipher_suites::CipherSuites;
use crate::client_certificate::AskForCertificate;
use routing_table::matcher::host::{normal_host, parent};
use routing_table::{
    Authorities, Certificate, ClientCertificates, HostMatch, TlsSettings, VirtualHosts,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::sync::Arc;

/// Everything one listener needs for a handshake.
#[derive(Debug)]
pub(crate) struct ListenerTls {
    exact: HashMap<Box<str>, Arc<Served>>,
    wildcard: HashMap<Box<str>, Arc<Served>>,
    default: Arc<Served>,
    /// By address of the authorities, which the value keeps alive, and depth.
    asking: HashMap<(usize, u8), Arc<Asking>>,
    virtual_hosts: Arc<VirtualHosts>,
}

/// A certificate with what rustls made of it.
#[derive(Debug)]
pub(crate) struct Served {
    /// `None`: made by ourselves.
    source: Option<Arc<Certificate>>,
    key: Arc<CertifiedKey>,
    /// For handshakes that ask for no client certificate.
    config: Arc<ServerConfig>,
    /// The names it is good for.
    names: Vec<HostMatch>,
}

/// The settings of a handshake that asks for a client certificate, but for who we are; and who may have issued it.
#[derive(Debug)]
struct Asking {
    authorities: Arc<Authorities>,
    trust: Trust,
    config: ServerConfig,
}

/// The oldest version of TLS that is spoken to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinTlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

static ONLY_TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl MinTlsVersion {
    fn and_newer(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        match self {
            Self::Tls12 => rustls::DEFAULT_VERSIONS,
            Self::Tls13 => ONLY_TLS13,
        }
    }
}

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

/// What the TLS listeners of a process share.
#[derive(Debug)]
pub(crate) struct ServerTls {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
    /// Without certificates. Its ticket keys are those of all listeners and workers, so that a client may resume wherever
    /// its next connection lands.
    base: ServerConfig,
    /// Self-signed, made at start, for clients that no other fits.
    fallback: Arc<Served>,
    /// The suites that were chosen, where TLS 1.2 is spoken.
    chosen: Option<CipherSuites>,
    /// What was said of them last.
    said: Vec<String>,
}

/// What a handshake is to be made with.
pub(crate) struct Choice {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) served: Arc<Served>,
    pub(crate) demand: Option<Arc<ClientCertificates>>,
    /// In normal form.
    pub(crate) server_name: Option<Box<str>>,
}

impl ServerTls {
    /// Makes the fallback certificate and the ticket keys.
    ///
    /// # Errors
    /// When there is no randomness to make keys of.
    pub(crate) fn new(settings: &Settings) -> Result<Self, TlsError> {
        let mut provider = default_provider();
        if let Some(suites) = &settings.cipher_suites {
            provider.cipher_suites = suites.get().to_vec();
        }
        let provider = Arc::new(provider);
        let versions = settings.min_tls_version.and_newer();
        let mut base = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        base.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // As ingress-nginx has it (ssl_prefer_server_ciphers): of suites that both have, ours come in order.
        base.ignore_client_order = true;
        base.ticketer = match &settings.ticket_keys {
            Some(keys) => Arc::clone(keys) as Arc<dyn ProducesTickets>,
            None => Ticketer::new()?,
        };
        base.send_tls13_tickets = 1;
        // Tickets are all we need; the cache would be a lock and memory per client.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        let fallback = Arc::new(Served::new(generate()?, None, &base));
        Ok(Self {
            provider,
            versions,
            base,
            fallback,
            chosen: match settings.min_tls_version {
                MinTlsVersion::Tls12 => settings.cipher_suites.clone(),
                MinTlsVersion::Tls13 => None,
            },
            said: Vec::new(),
        })
    }

    /// Logs what is new to say of the chosen suites beside the certificates of these listeners.
    pub(crate) fn warn_of_suites<'a>(&mut self, all: impl Iterator<Item = &'a Arc<ListenerTls>>) {
        let Some(chosen) = &self.chosen else { return };
        let served = all.flat_map(|listener| listener.served());
        let mut keys: Vec<(rustls::SignatureAlgorithm, &str)> = served
            .filter_map(|one| Some((one.key.key.algorithm(), &*one.source.as_ref()?.source)))
            .collect();
        keys.sort_by_key(|(_, source)| *source);
        keys.dedup();
        let warnings = chosen.warnings(&keys);
        for warning in warnings.iter().filter(|one| !self.said.contains(*one)) {
            tracing::warn!("{warning}");
        }
        self.said = warnings;
    }

    /// Makes ready what a listener needs; what `previous` has ready already is taken over.
    pub(crate) fn listener(
        &self,
        settings: &TlsSettings,
        virtual_hosts: &Arc<VirtualHosts>,
        previous: Option<&Arc<ListenerTls>>,
    ) -> Arc<ListenerTls> {
        let mut ready: HashMap<usize, Arc<Served>> = HashMap::new();
        let before = previous.into_iter().flat_map(|previous| previous.served());
        ready.extend(before.filter_map(|one| {
            let source = one.source.as_ref()?;
            Some((address(source), Arc::clone(one)))
        }));
        let mut serve = |certificate: &Arc<Certificate>| {
            if let Some(one) = ready.get(&address(certificate)) {
                return Some(Arc::clone(one));
            }
            match load(certificate) {
                Ok(key) => {
                    let one = Arc::new(Served::new(key, Some(certificate), &self.base));
                    ready.insert(address(certificate), Arc::clone(&one));
                    Some(one)
                }
                Err(error) => {
                    tracing::error!(source = %certificate.source, %error, "certificate cannot be used");
                    None
                }
            }
        };
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for (host, certificate) in settings.certificates.iter() {
            let Some(one) = serve(certificate) else {
                continue;
            };
            match host {
                HostMatch::Exact(name) => drop(exact.insert(name, one)),
                HostMatch::Wildcard(suffix) => drop(wildcard.insert(suffix, one)),
                HostMatch::Any => {}
            }
        }
        let default = settings.default_certificate.as_ref().and_then(&mut serve);
        let mut asking = HashMap::new();
        for (host, demand) in virtual_hosts.demands() {
            let key = asking_key(demand);
            if asking.contains_key(&key) {
                continue;
            }
            let kept = previous.and_then(|previous| previous.asking.get(&key));
            let ready = match kept {
                Some(kept) => Ok(Arc::clone(kept)),
                None => self.asking(&demand.authorities, demand.depth).map(Arc::new),
            };
            match ready {
                Ok(ready) => drop(asking.insert(key, ready)),
                // Without it there is no handshake for the host, and its routes are closed.
                Err(error) => {
                    tracing::error!(%host, %error, "client certificates cannot be asked for")
                }
            }
        }
        Arc::new(ListenerTls {
            exact,
            wildcard,
            default: default.unwrap_or_else(|| Arc::clone(&self.fallback)),
            asking,
            virtual_hosts: Arc::clone(virtual_hosts),
        })
    }

    fn asking(&self, authorities: &Arc<Authorities>, depth: u8) -> Result<Asking, rustls::Error> {
        // Whatever cannot be read leaves nobody who is believed.
        let trust = Trust::new(authorities, depth).unwrap_or_else(|error| {
            tracing::error!(%authorities, %error, "no client certificate can be accepted");
            Trust::none()
        });
        let ask = AskForCertificate::new(&trust, &self.provider);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.versions)?
            .with_client_cert_verifier(Arc::new(ask))
            .with_cert_resolver(Arc::new(NoCertificate));
        config.alpn_protocols.clone_from(&self.base.alpn_protocols);
        config.ignore_client_order = self.base.ignore_client_order;
        // A resumed session would bring along a certificate that nobody proved to have the key of, so there are neither
        // tickets (the default) nor a cache.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Asking {
            authorities: Arc::clone(authorities),
            trust,
            config,
        })
    }
}

impl ListenerTls {
    /// What to make a handshake with, or none: then there must be no handshake.
    pub(crate) fn choose(&self, server_name: Option<&str>) -> Option<Choice> {
        // A name without a normal form is kept, so that it equals no host.
        let server_name = server_name.map(|name| normal_host(name).unwrap_or_else(|_| name.into()));
        let served = self.served_for(server_name.as_deref());
        let demand = self
            .virtual_hosts
            .client_certificates(server_name.as_deref());
        let config = match demand {
            None => Arc::clone(&served.config),
            Some(demand) => {
                let mut config = self.asking.get(&asking_key(demand))?.config.clone();
                config.cert_resolver = Arc::new(Only(Arc::clone(&served.key)));
                Arc::new(config)
            }
        };
        Some(Choice {
            config,
            served: Arc::clone(served),
            demand: demand.cloned(),
            server_name: server_name.map(|name| name.as_ref().into()),
        })
    }

    /// The certificate for a server name in normal form: exact, one wildcard label, the default.
    pub(crate) fn served_for(&self, name: Option<&str>) -> &Arc<Served> {
        let found = name.and_then(|name| {
            self.exact
                .get(name)
                .or_else(|| self.wildcard.get(parent(name)?))
        });
        found.unwrap_or(&self.default)
    }

    /// Who may have issued what a demand of this table asks for.
    pub(crate) fn trust(&self, demand: &ClientCertificates) -> Option<&Trust> {
        let ready = self.asking.get(&asking_key(demand))?;
        // An address says nothing about a value that is gone, so this is looked at, though the key keeps it alive.
        Arc::ptr_eq(&ready.authorities, &demand.authorities).then_some(&ready.trust)
    }

    fn served(&self) -> impl Iterator<Item = &Arc<Served>> {
        let named = self.exact.values().chain(self.wildcard.values());
        named.chain([&self.default])
    }
}

impl Served {
    fn new(key: CertifiedKey, source: Option<&Arc<Certificate>>, base: &ServerConfig) -> Self {
        let key = Arc::new(key);
        let mut config = base.clone();
        config.cert_resolver = Arc::new(Only(Arc::clone(&key)));
        Self {
            source: source.cloned(),
            names: certificates::names(&key.cert),
            key,
            config: Arc::new(config),
        }
    }

    /// Whether it is good for a host in normal form.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.matches(host))
    }
}

fn asking_key(demand: &ClientCertificates) -> (usize, u8) {
    (address(&demand.authorities), demand.depth)
}

/// Where a value is, as a key that holds no claim to it.
fn address<T>(value: &Arc<T>) -> usize {
    Arc::as_ptr(value).addr()
}

fn load(certificate: &Certificate) -> Result<CertifiedKey, rustls::Error> {
    let signer = default_provider()
        .key_provider
        .load_private_key(certificate.key.clone_key())?;
    let mut key = CertifiedKey::new(certificate.chain.clone(), signer);
    key.ocsp.clone_from(&certificate.ocsp);
    Ok(key)
}

/// A certificate that names no host, so no client can take it for a real one.
fn generate() -> Result<CertifiedKey, TlsError> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(vec!["tidegate.invalid".to_owned()])?;
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Tidegate default certificate");
    let certificate = parameters.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = default_provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
}

/// One certificate, whatever the client says: which one was decided before.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Stands where a certificate will.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
