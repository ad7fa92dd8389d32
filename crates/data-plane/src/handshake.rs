//! The TLS handshake of a client: its first message is read, then what it is made with is chosen from the current table.
//!
//! All of it within one deadline. Only clients that have said hello count towards the bound on handshakes, so that silent
//! ones cannot use it up.

use crate::client::ClientConnection;
use crate::client_certificate::TlsSession;
use crate::metrics::HandshakeFailure;
use crate::worker::Worker;
use rustls::server::Acceptor;
use rustls::{AlertDescription, PeerIncompatible};
use std::io;
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Makes a handshake; what it came to is in [`ClientConnection::tls`]. `None` after one that failed, which is counted.
pub(crate) async fn accept(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let limit = worker.settings.client_timeouts.handshake;
    let failed = match timeout(limit, handshake(worker, client, stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            let reason = reason(&error);
            tracing::debug!(
                client = client.addr_text,
                reason = reason.as_str(),
                %error,
                "TLS handshake failed"
            );
            reason
        }
        Err(_) => {
            tracing::debug!(
                client = client.addr_text,
                reason = "timeout",
                "TLS handshake failed"
            );
            HandshakeFailure::Timeout
        }
    };
    worker.stats.handshake_failures.count(failed);
    None
}

async fn handshake(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let choice = worker.reader.read(|table| {
        let tls = table.tls(&client.listener)?;
        tls.choose(hello.server_name())
    });
    let choice = choice.ok_or(io::ErrorKind::ConnectionAborted)?;
    // Closed never: the semaphore lives as long as the worker.
    let _permit = worker.handshakes.acquire().await;
    let stream = start.into_stream(choice.config).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    // Not yet set: a connection has one handshake.
    let _ = client.tls.set(TlsSession::new(
        choice.server_name,
        choice.served,
        choice.demand,
        chain,
    ));
    Ok(stream)
}

/// Why a handshake failed, from a closed set: it is a label.
fn reason(error: &io::Error) -> HandshakeFailure {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => HandshakeFailure::Closed,
            _ => HandshakeFailure::Other,
        };
    };
    match tls {
        rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::PeerSentOversizedRecord
        | rustls::Error::DecryptError
        | rustls::Error::PeerMisbehaved(_) => HandshakeFailure::Malformed,
        rustls::Error::PeerIncompatible(
            // TLS 1.2 brought that extension, so who does not send it is older.
            PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => HandshakeFailure::Version,
        rustls::Error::PeerIncompatible(_) => HandshakeFailure::NothingInCommon,
        rustls::Error::NoApplicationProtocol => HandshakeFailure::Protocol,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            HandshakeFailure::ClientCertificate
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate,
        ) => HandshakeFailure::RefusedOurs,
        rustls::Error::AlertReceived(_) => HandshakeFailure::Closed,
        _ => HandshakeFailure::Other,
    }
}
