//! TLS towards endpoints: settings of the table made ready when it is published, and kept while they stay the same.

use crate::certificate_chain::{Trust, reason};
use routing_table::{ClusterId, RoutingTable, TlsVersions, UpstreamProtocol, UpstreamTls};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use webpki::{EndEntityCert, Error, KeyUsage};

/// Sessions to resume that are remembered for each cluster.
const SESSIONS: usize = 256;

/// The same for a probe of one endpoint.
const PROBE_SESSIONS: usize = 4;

/// What connections of one cluster are made with. Connections of different values never stand in for each other.
#[derive(Debug)]
pub(crate) struct UpstreamConnector {
    settings: Arc<UpstreamTls>,
    pub(crate) config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Of endpoints that are called otherwise.
    own_names: HashMap<SocketAddr, ServerName<'static>>,
    /// Endpoints must speak HTTP/2 through it.
    pub(crate) http2: bool,
    /// Not 0, which is plain TCP.
    id: u64,
}

/// Tells connections apart that lead to one address in different ways; 0 is plain TCP.
pub(crate) fn transport(connector: Option<&Arc<UpstreamConnector>>) -> u64 {
    connector.map_or(0, |connector| connector.id)
}

/// The connectors of the published table.
#[derive(Debug, Default)]
pub(crate) struct Connectors {
    by_cluster: HashMap<ClusterId, Arc<UpstreamConnector>>,
    made: u64,
}

/// How endpoints of a cluster are reached.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    Plain,
    Tls(Arc<UpstreamConnector>),
    /// As the table wants it, it cannot be done.
    Closed,
}

impl Connectors {
    /// Makes ready what a table needs; what it has as the table before is kept. By position of the cluster.
    pub(crate) fn prepare(&mut self, table: &RoutingTable) -> Vec<Reach> {
        let mut next = HashMap::new();
        let mut all = Vec::new();
        for cluster in table.clusters().as_slice() {
            let Some(settings) = &cluster.tls else {
                all.push(Reach::Plain);
                continue;
            };
            let kept = self.by_cluster.get(&cluster.id);
            let http2 = cluster.protocol == UpstreamProtocol::Http2;
            let same =
                |kept: &&Arc<UpstreamConnector>| kept.settings == *settings && kept.http2 == http2;
            let connector = match kept.filter(same) {
                Some(kept) => Ok(Arc::clone(kept)),
                None => {
                    self.made += 1;
                    UpstreamConnector::new(settings, http2, self.made).map(Arc::new)
                }
            };
            all.push(match connector {
                Ok(connector) => {
                    next.insert(cluster.id.clone(), Arc::clone(&connector));
                    Reach::Tls(connector)
                }
                Err(error) => {
                    tracing::error!(cluster = %cluster.id, %error, "TLS to endpoints cannot be set up");
                    Reach::Closed
                }
            });
        }
        self.by_cluster = next;
        all
    }
}

impl UpstreamConnector {
    fn new(settings: &Arc<UpstreamTls>, http2: bool, id: u64) -> Result<Self, rustls::Error> {
        let provider = Arc::new(default_provider());
        let unusable = |what: &str| rustls::Error::General(what.to_owned());
        let read = |name: &str| {
            let name = ServerName::try_from(name.to_owned());
            name.map_err(|_| unusable("the server name is none"))
        };
        let name = read(&settings.server_name)?;
        let own_names = settings.own_names.iter();
        let own_names = own_names
            .map(|(addr, name)| Ok((*addr, read(name)?)))
            .collect::<Result<_, rustls::Error>>()?;
        let trust = match &settings.verify {
            None => None,
            Some(verify) => Some(
                Trust::new(&verify.authorities, verify.depth)
                    .map_err(|error| unusable(reason(&error)))?,
            ),
        };
        let versions: &[_] = match (settings.versions.tls12, settings.versions.tls13) {
            (true, false) => &[&rustls::version::TLS12],
            (false, true) => &[&rustls::version::TLS13],
            _ => rustls::DEFAULT_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { trust, provider }));
        let mut config = match &settings.client_certificate {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key())?,
        };
        config.alpn_protocols = vec![if http2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        config.enable_sni = settings.send_server_name;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            settings: Arc::clone(settings),
            config: Arc::new(config),
            name,
            own_names,
            http2,
            id,
        })
    }

    /// What an endpoint must prove to be called.
    pub(crate) fn name_of(&self, endpoint: SocketAddr) -> ServerName<'static> {
        self.own_names.get(&endpoint).unwrap_or(&self.name).clone()
    }
}

/// For probes, which never share a session or a connection with requests.
impl UpstreamConnector {
    /// This one for a probe of an endpoint that speaks HTTP/2, HTTP/1.1, or something of its own (`None`).
    pub(crate) fn for_probe(&self, endpoint: SocketAddr, http2: Option<bool>) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = match http2 {
            Some(true) => vec![b"h2".to_vec()],
            Some(false) => vec![b"http/1.1".to_vec()],
            None => Vec::new(),
        };
        config.resumption = Resumption::in_memory_sessions(PROBE_SESSIONS);
        Self {
            settings: Arc::clone(&self.settings),
            config: Arc::new(config),
            name: self.name_of(endpoint),
            // The probe may go to another port.
            own_names: HashMap::new(),
            http2: http2 == Some(true),
            id: self.id,
        }
    }

    /// For a probe that makes a handshake and believes every certificate; the rest is as `like` has it.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub(crate) fn for_handshake(
        endpoint: SocketAddr,
        like: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        let settings = match like {
            Some(like) => UpstreamTls {
                verify: None,
                ..(*like.settings).clone()
            },
            None => UpstreamTls {
                server_name: endpoint.ip().to_string().into(),
                own_names: BTreeMap::new(),
                send_server_name: false,
                verify: None,
                client_certificate: None,
                versions: TlsVersions::default(),
            },
        };
        Ok(Self::new(&Arc::new(settings), false, 0)?.for_probe(endpoint, None))
    }
}

/// Judges the certificate of an endpoint.
#[derive(Debug)]
struct Verifier {
    /// `None`: everybody is believed. That it has the key is checked all the same.
    trust: Option<Trust>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let check = || -> Result<(), Error> {
            let leaf = EndEntityCert::try_from(leaf)?;
            trust.check(&leaf, intermediates, KeyUsage::server_auth(), now)?;
            leaf.verify_is_valid_for_subject_name(name)
        };
        match check() {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                let error = match error {
                    Error::UnknownIssuer => CertificateError::UnknownIssuer,
                    Error::CertExpired { .. } => CertificateError::Expired,
                    Error::CertRevoked => CertificateError::Revoked,
                    Error::CertNotValidForName(_) => CertificateError::NotValidForName,
                    other => CertificateError::Other(OtherError(Arc::new(other))),
                };
                Err(error.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
