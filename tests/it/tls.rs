//! An HTTPS client that looks at the certificate it is shown instead of checking it.

use bytes::Bytes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Accepts every certificate.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
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

/// A client that offers this protocol.
pub(crate) fn client(alpn: &str) -> ClientConfig {
    client_of(alpn, rustls::DEFAULT_VERSIONS)
}

/// As [`client`], of these versions.
pub(crate) fn client_of(
    alpn: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap();
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

/// A TLS connection with this server name and protocol.
pub(crate) async fn connect(addr: SocketAddr, host: &str, alpn: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(Arc::new(client(alpn)))
        .connect(name, stream)
        .await
        .unwrap()
}

/// GETs over TLS; gives the body, the bytes of the certificate as text (names stand in it in the clear), and the protocol.
pub(crate) async fn https_get(
    addr: SocketAddr,
    host: &str,
    path: &str,
    alpn: &str,
) -> (String, String, String) {
    let stream = connect(addr, host, alpn).await;
    let session = stream.get_ref().1;
    let certificate =
        String::from_utf8_lossy(&session.peer_certificates().unwrap()[0]).into_owned();
    let negotiated =
        String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
    let body = if negotiated == "h2" {
        test_support::client::over_http2(stream, host, path).await
    } else {
        test_support::client::over_http1(stream, host, path).await
    };
    (body_text(&body), certificate, negotiated)
}

fn body_text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}
