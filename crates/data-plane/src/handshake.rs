//! The TLS handshake of a client: its first message is read, then what it is made with is chosen from the current table.
//!
//! All of it within one deadline. What costs us is the answer to the hello, so that is what is bounded: so many may be
//! computed before everything else on the worker gets its turn. Waiting for a client holds nothing that others need, so
//! clients that stall cannot keep anybody out.

use crate::client::ClientConnection;
use crate::client_certificate::TlsSession;
use crate::metrics::{HandshakeFailure, WorkerStats};
use crate::worker::Worker;
use rustls::server::Acceptor;
use rustls::{AlertDescription, PeerIncompatible};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// So many bytes are read before they are looked at: what follows the first message in them is kept.
const FIRST_RECORDS: usize = 16 * 1024;

/// Makes a handshake with a client from which `begun` was read already; what it came to is in [`ClientConnection::tls`]. `None` after one that failed, which is counted.
pub(crate) async fn accept(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    stream: TcpStream,
    begun: Vec<u8>,
) -> Option<TlsStream<TcpStream>> {
    let limit = worker.settings.client_timeouts.handshake;
    let failed = match timeout(limit, handshake(worker, client, stream, begun)).await {
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
    begun: Vec<u8>,
) -> io::Result<TlsStream<TcpStream>> {
    let start = begin(stream, &begun).await?;
    drop(begun);
    let hello = start.client_hello();
    let choice = worker.reader.read(|table| {
        let tls = table.tls(&client.listener)?;
        tls.choose(hello.server_name())
    });
    let choice = choice.ok_or(io::ErrorKind::ConnectionAborted)?;
    let mut rest = pin!(start.into_stream(choice.config));
    let turn = Turn::wait(worker).await;
    // The answer to the hello is computed here, in one go, and nothing else.
    let first = poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
    tokio::task::yield_now().await;
    drop(turn);
    let stream = match first {
        Poll::Ready(ended) => ended?,
        Poll::Pending => rest.await?,
    };
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

/// The right to compute the answer to a hello. There are so many as may be computed at once.
struct Turn<'a> {
    stats: &'a WorkerStats,
    /// Closed never: the semaphore lives as long as the worker.
    _permit: Result<SemaphorePermit<'a>, AcquireError>,
}

impl<'a> Turn<'a> {
    async fn wait(worker: &'a Worker) -> Self {
        let permit = worker.handshakes.acquire().await;
        let stats = &*worker.stats;
        stats.handshakes_active.add(1);
        let now = stats.handshakes_active.get();
        stats
            .handshakes_peak
            .set(stats.handshakes_peak.get().max(now));
        Self {
            stats,
            _permit: permit,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.stats.handshakes_active.sub(1);
    }
}

/// Reads the first message, or what is missing of it.
async fn begin(mut stream: TcpStream, mut begun: &[u8]) -> io::Result<StartHandshake<TcpStream>> {
    let mut acceptor = Acceptor::default();
    let all = begun.len();
    while !begun.is_empty() {
        acceptor.read_tls(&mut begun)?;
        if !begun.is_empty() && all - begun.len() < FIRST_RECORDS {
            continue;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) if begun.is_empty() => {
                return Ok(StartHandshake::from_parts(accepted, stream));
            }
            // What follows a first message this long without waiting for our answer is not read any more.
            Ok(Some(_)) => return Err(io::ErrorKind::InvalidData.into()),
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // Writing to a Vec cannot fail; that the client does not take it changes nothing.
                let _ = alert.write_all(&mut bytes);
                let _ = stream.write_all(&bytes).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
    LazyConfigAcceptor::new(acceptor, stream).await
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
