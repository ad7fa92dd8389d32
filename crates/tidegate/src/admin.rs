//! The admin port: `/healthz`, `/readyz`, `/metrics`. On the control runtime, so that load cannot starve it.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Most connections at once; a scraper and two probes need three.
const MAX_CONNECTIONS: usize = 64;

/// What the admin port tells.
pub(crate) struct Admin {
    /// Whether traffic should be sent here.
    pub(crate) ready: AtomicBool,
    /// What is measured.
    pub(crate) registry: Registry,
}

impl Admin {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" if self.ready.load(Ordering::Relaxed) => {
                text(StatusCode::OK, "ready\n".into())
            }
            "/readyz" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: no table published yet, or stopping\n".into(),
            ),
            "/metrics" => match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "try /healthz, /readyz or /metrics\n".into(),
            ),
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Opens the admin port.
///
/// # Errors
/// When it cannot be opened; the error names the address.
pub(crate) async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr} (--admin-addr)"))
}

/// Serves the admin port for ever.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Each of those before ends within seconds, so a probe need only wait for its turn.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = admin.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(2))
                // One answer a connection, so that those at rest cannot keep a probe out.
                .keep_alive(false)
                .max_header_size(16 * 1024);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(Duration::from_secs(10), connection).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_told_apart_from_health() {
        let admin = Admin {
            ready: AtomicBool::new(false),
            registry: Registry::new(),
        };
        let status = |path| admin.answer(&Method::GET, path).status().as_u16();
        assert_eq!(
            (status("/healthz"), status("/readyz"), status("/x")),
            (200, 503, 404)
        );
        admin.ready.store(true, Ordering::Relaxed);
        assert_eq!((status("/readyz"), status("/metrics")), (200, 200));
        assert_eq!(
            admin.answer(&Method::POST, "/healthz").status().as_u16(),
            405
        );
    }
}
