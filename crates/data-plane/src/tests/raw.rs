//! Backends that answer with the bytes a test gives them, and a client that sends bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a raw backend does with the n-th request it gets, counted over all its connections.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Writes these bytes and goes on.
    Reply(&'static str),
    /// Writes these bytes and closes.
    ReplyAndClose(&'static str),
    /// Writes nothing.
    Silence,
    /// Answers 200 with "ok", then closes the connection a moment later, while it is at rest.
    OkThenCloseAtRest,
}

/// A backend of raw bytes.
pub(crate) struct RawBackend {
    pub(crate) addr: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl RawBackend {
    /// Answers the n-th request with the n-th act; the last one again and again.
    pub(crate) async fn start(acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (acts, counted) = (acts.to_vec(), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, acts.clone(), Arc::clone(&counted)));
            }
        });
        Self { addr, requests }
    }

    /// Whole heads received.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn answer(mut stream: TcpStream, acts: Vec<Act>, counted: Arc<AtomicUsize>) {
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let Ok(count @ 1..) = stream.read(&mut buffer).await else {
            return;
        };
        seen.extend_from_slice(&buffer[..count]);
        if !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            continue;
        }
        seen.clear();
        let number = counted.fetch_add(1, Ordering::Relaxed);
        match acts.get(number).or(acts.last()) {
            Some(Act::Reply(bytes)) => stream.write_all(bytes.as_bytes()).await.unwrap(),
            Some(Act::ReplyAndClose(bytes)) => {
                let _ = stream.write_all(bytes.as_bytes()).await;
                return;
            }
            Some(Act::OkThenCloseAtRest) => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                return;
            }
            Some(Act::Silence) | None => tokio::time::sleep(Duration::from_secs(3600)).await,
        }
    }
}

/// Sends bytes and reads until the proxy closes, or for 10 s.
pub(crate) async fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
