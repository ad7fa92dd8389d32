//! An HTTP/1.1 backend that says its name, on a real socket.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A request as the backend saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Target as it stood in the request line.
    pub target: String,
    /// Fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// A running backend. Dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    close: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    name: String,
    delay: Duration,
    requests: AtomicU64,
    connections: AtomicU64,
    last: Mutex<Option<Seen>>,
}

impl Backend {
    /// A backend on a port of its own on 127.0.0.1 that answers every request with its name.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, ([127, 0, 0, 1], 0).into(), Duration::ZERO).await
    }

    /// A backend at an address, which waits before each answer.
    pub async fn start_at(name: &str, addr: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind(addr)
            .await
            .expect("a backend can bind its address");
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            delay,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            last: Mutex::new(None),
        });
        let (stop, close) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(accept(
            listener,
            Arc::clone(&shared),
            stop.clone(),
            close.clone(),
        ));
        Self {
            addr,
            shared,
            stop,
            close,
        }
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The last request.
    pub fn last(&self) -> Option<Seen> {
        self.shared.last.lock().unwrap().clone()
    }

    /// Accepts nothing more; open connections finish their request and close, as a server does on SIGTERM.
    pub fn shut_down(&self) {
        self.stop.cancel();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.cancel();
        self.close.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
    close: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { return };
        let _ = stream.set_nodelay(true);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (shared, stop, close) = (Arc::clone(&shared), stop.clone(), close.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let mut connection = std::pin::pin!(
                http1::Builder::new().serve_connection(TokioIo::new(stream), service)
            );
            tokio::select! {
                _ = connection.as_mut() => {}
                () = close.cancelled() => {}
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! { _ = connection => {}, () = close.cancelled() => {} }
                }
            }
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    if !shared.delay.is_zero() {
        tokio::time::sleep(shared.delay).await;
    }
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    *shared.last.lock().unwrap() = Some(seen);
    shared.requests.fetch_add(1, Ordering::Relaxed);
    Ok(Response::new(Full::new(Bytes::from(shared.name.clone()))))
}
