//! The admin port: `/healthz`, `/readyz`, `/metrics`, `/backends`. On the control runtime, so that load cannot starve it.

use crate::backends;
use anyhow::Context;
use bytes::Bytes;
use data_plane::Backends;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Most connections at once; a scraper and two probes need three.
const MAX_CONNECTIONS: usize = 64;
/// Largest body of a change in bytes, and how long it may take.
const MAX_BODY: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(5);

/// What the admin port tells.
pub(crate) struct Admin {
    /// Whether traffic should be sent here.
    pub(crate) ready: AtomicBool,
    /// What is measured.
    pub(crate) registry: Registry,
    /// Endpoints; set once the data plane runs.
    pub(crate) backends: OnceLock<Backends>,
    /// Whether endpoints may be changed here.
    pub(crate) writes: bool,
}

impl Admin {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix("/backends/") {
            Some(place) if request.method() == Method::POST => {
                let changed = self.change(place, request).await;
                changed.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
            }
            _ => self.answer(request.method(), &path),
        }
    }

    async fn change(
        &self,
        place: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, (StatusCode, String)> {
        let refused = |status, why: &str| Err((status, why.to_owned()));
        if !self.writes {
            let why = "endpoints are not to be changed here: it needs the flag --admin-writes";
            return refused(StatusCode::FORBIDDEN, why);
        }
        if request.headers().contains_key(header::ORIGIN) {
            let why = "a page in a browser asks for this: endpoints are changed by programs only";
            return refused(StatusCode::FORBIDDEN, why);
        }
        let Some(backends) = self.backends.get() else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "still starting");
        };
        let body = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = match tokio::time::timeout(BODY_TIME, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let why = format!("the body has more than {MAX_BODY} bytes");
                return refused(StatusCode::PAYLOAD_TOO_LARGE, &why);
            }
            Ok(Err(_)) => return refused(StatusCode::BAD_REQUEST, "the body was cut off"),
            Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        };
        Ok(json(backends::change(backends, place, &body)?))
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let why = "only GET, and POST to an endpoint below /backends/\n";
            return text(StatusCode::METHOD_NOT_ALLOWED, why.into());
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
            "/backends" => match self.backends.get() {
                Some(backends) => json(backends::list(backends)),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "still starting\n".into()),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "try /healthz, /readyz, /metrics or /backends\n".into(),
            ),
        }
    }
}

fn json(text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
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
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.respond(request).await) }
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
            backends: OnceLock::new(),
            writes: false,
        };
        let status = |path| admin.answer(&Method::GET, path).status().as_u16();
        assert_eq!(
            (status("/healthz"), status("/readyz"), status("/x")),
            (200, 503, 404)
        );
        assert_eq!(status("/backends"), 503);
        admin.ready.store(true, Ordering::Relaxed);
        assert_eq!((status("/readyz"), status("/metrics")), (200, 200));
        assert_eq!(
            admin.answer(&Method::POST, "/healthz").status().as_u16(),
            405
        );
    }
}
