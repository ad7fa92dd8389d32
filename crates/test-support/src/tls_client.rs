//! A TLS client that believes every server and can show a certificate of its own.

use crate::certificate::Issued;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client's settings. Connections of one client resume each other's sessions.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: ClientConfig,
    stapled: Arc<Mutex<Vec<u8>>>,
}

/// Accepts every certificate; remembers the OCSP response that came along.
#[derive(Debug)]
struct Anything(Arc<Mutex<Vec<u8>>>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl TlsClient {
    /// A client, with a certificate or without.
    pub fn new(identity: Option<&Issued>) -> Self {
        Self::with_versions(identity, rustls::DEFAULT_VERSIONS)
    }

    /// A client of only these versions.
    pub fn with_versions(
        identity: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let stapled = Arc::default();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything(Arc::clone(&stapled))));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(identity.chain.clone(), key)
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config, stapled }
    }

    /// Offers only this protocol; without it, `http/1.1`.
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self
    }

    /// Connects and asks for a server name; an empty one is not sent.
    ///
    /// # Errors
    /// When the connection or the handshake fails.
    pub async fn connect(&self, addr: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.enable_sni = !name.is_empty();
        let name = if name.is_empty() { "none.test" } else { name };
        let stream = TcpStream::connect(addr).await?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// The OCSP response that came with the last certificate.
    pub fn stapled(&self) -> Vec<u8> {
        self.stapled.lock().unwrap().clone()
    }
}
