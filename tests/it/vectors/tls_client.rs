//! TLS clients for vectors: one that says whether a handshake worked, and one that only sends bytes.

use super::stand::Stand;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client that accepts every certificate and offers this protocol.
pub(crate) fn client(alpn: &str) -> ClientConfig {
    crate::tls::client(alpn)
}

/// Connects with this server name.
pub(crate) async fn connect(
    stand: &Stand,
    name: &str,
    alpn: &str,
) -> Result<TlsStream<TcpStream>, String> {
    connect_with(stand, name, Arc::new(client(alpn))).await
}

/// Connects with a configuration that may remember sessions.
pub(crate) async fn connect_with(
    stand: &Stand,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = test_support::raw::connect(stand.tidegate.https).await;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| error.to_string())
}

/// What a server answered to bytes.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) bytes: Vec<u8>,
    /// It ended the connection.
    pub(crate) ended: bool,
}

/// Sends bytes and reads the beginning of what comes back.
pub(crate) async fn handshake(stand: &Stand, bytes: &[u8], patience: Duration) -> Answered {
    let mut stream = test_support::raw::connect(stand.tidegate.https).await;
    let _ = stream.write_all(bytes).await;
    read(&mut stream, patience).await
}

/// Reads until the server's first flight is there, or the connection ends, or nothing comes.
pub(crate) async fn read(stream: &mut TcpStream, patience: Duration) -> Answered {
    let mut answered = Answered::default();
    let mut piece = vec![0; 16 * 1024];
    loop {
        match tokio::time::timeout(patience, stream.read(&mut piece)).await {
            Err(_) => return answered,
            Ok(Ok(0) | Err(_)) => {
                answered.ended = true;
                return answered;
            }
            Ok(Ok(count)) => answered.bytes.extend_from_slice(&piece[..count]),
        }
        if is_whole_flight(&answered.bytes) {
            return answered;
        }
    }
}

/// Whether it has ServerHelloDone, which ends a server's first flight in TLS 1.2.
fn is_whole_flight(bytes: &[u8]) -> bool {
    bytes.first() == Some(&22) && bytes.ends_with(&[14, 0, 0, 0])
}

/// Reads until the server ends the connection; says whether it did.
pub(crate) async fn wait_for_end(stream: &mut TcpStream, most: Duration) -> bool {
    let mut piece = vec![0; 16 * 1024];
    let read = async {
        loop {
            if let Ok(0) | Err(_) = stream.read(&mut piece).await {
                return;
            }
        }
    };
    tokio::time::timeout(most, read).await.is_ok()
}

/// Which of the certificates of a stand stands in a server's first flight.
pub(crate) fn certificate_of(flight: &[u8]) -> Option<&'static str> {
    let names = ["tidegate.invalid", "*.w.test", "a.test", "b.test"];
    names.into_iter().find(|name| {
        flight
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    })
}
