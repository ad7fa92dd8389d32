//! The admin port: `/healthz`, `/readyz`, `/metrics`, `/backends`, `/profile`. On the control runtime, so that load cannot starve
//! it.

mod access;
mod browser;
mod connections;
mod flamegraph;
mod profile;

pub(crate) use access::Access;

use crate::args::AdminArgs;
use crate::backends;
use anyhow::Context;
use bytes::Bytes;
use connections::{Connections, Place, Stage};
use data_plane::Backends;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use profile::Profiler;
use prometheus::{Registry, TextEncoder};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Most connections at once; a scraper and two probes need three. Each holds an answer at most.
const MAX_CONNECTIONS: usize = 64;
/// Largest body of a change in bytes, and how long it may take.
const MAX_BODY: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(5);
/// Longest wait for a whole head.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// How long a connection may take in all, but for a profile.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// What the admin port tells.
pub(crate) struct Admin {
    /// Whether traffic should be sent here.
    pub(crate) ready: AtomicBool,
    /// Whether it was told to stop.
    pub(crate) stopping: AtomicBool,
    /// What is measured.
    pub(crate) registry: Registry,
    /// Endpoints; set once the data plane runs.
    pub(crate) backends: OnceLock<Backends>,
    /// Whether endpoints may be changed here.
    writes: bool,
    /// Takes profiles, where that is allowed.
    profiler: Option<Profiler>,
    access: Access,
}

impl Admin {
    /// What there is to tell before the data plane runs.
    pub(crate) fn new(registry: Registry, args: &AdminArgs, access: Access) -> Self {
        Self {
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            registry,
            backends: OnceLock::new(),
            writes: args.writes,
            profiler: args.profile.then(Profiler::new),
            access,
        }
    }

    /// Answers a request of the connection in that place.
    async fn respond(&self, request: Request<Incoming>, place: &Place) -> Response<Full<Bytes>> {
        place.reached(Stage::Answering);
        let path = request.uri().path().to_owned();
        if let Some(challenge) = self.access.challenge(&path, request.headers()) {
            let why = "the admin port asks for the bearer token of --admin-token-file\n";
            let mut answer = text(StatusCode::UNAUTHORIZED, why.into());
            let fields = answer.headers_mut();
            fields.insert(header::WWW_AUTHENTICATE, challenge);
            return answer;
        }
        if !is_for_everybody(&path) {
            // Whoever comes this far has shown the token, where there is one.
            let knows_token = self.access.has_token();
            if let Some(why) = browser::refusal(request.uri(), request.headers(), knows_token) {
                return text(StatusCode::FORBIDDEN, format!("{why}\n"));
            }
        }
        let answered = match path.strip_prefix("/backends/") {
            Some(place) if request.method() == Method::POST => self.change(place, request).await,
            None if path == "/profile" && request.method() == Method::GET => {
                self.profile(&request, place).await
            }
            _ => Ok(self.answer(request.method(), &path)),
        };
        answered.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
    }

    async fn profile(
        &self,
        request: &Request<Incoming>,
        place: &Place,
    ) -> Result<Response<Full<Bytes>>, (StatusCode, String)> {
        let Some(profiler) = &self.profiler else {
            let why = "profiles are not to be taken here: it needs the flag --admin-profile";
            return Err((StatusCode::FORBIDDEN, why.to_owned()));
        };
        let (body, media_type) = profiler
            .take(request.uri().query(), || place.reached(Stage::Profiling))
            .await?;
        place.reached(Stage::Answering);
        Ok(of_type(media_type, body))
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

    /// Why traffic should not be sent here, if so.
    fn unready(&self) -> Option<&'static str> {
        match (
            self.stopping.load(Ordering::Relaxed),
            self.ready.load(Ordering::Relaxed),
        ) {
            (true, _) => Some("stopping"),
            (false, false) => Some("no table published yet"),
            (false, true) => None,
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let why = "only GET, and POST to an endpoint below /backends/\n";
            return text(StatusCode::METHOD_NOT_ALLOWED, why.into());
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => match self.unready() {
                None => text(StatusCode::OK, "ready\n".into()),
                Some(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {why}\n"),
                ),
            },
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
                "try /healthz, /readyz, /metrics, /backends or /profile\n".into(),
            ),
        }
    }
}

fn json(text: String) -> Response<Full<Bytes>> {
    of_type("application/json", text)
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = of_type("text/plain; version=0.0.4; charset=utf-8", text);
    *response.status_mut() = status;
    response
}

fn of_type(media_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let media_type = http::HeaderValue::from_static(media_type);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, media_type);
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

/// Serves the admin port for ever. A connection that comes waits for no other: see [`connections`].
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let connections = Connections::new(MAX_CONNECTIONS);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let place = connections.enter(peer.ip());
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let closing = place.closing.clone();
            closing
                .run_until_cancelled(serve_one(&admin, stream, place))
                .await;
        });
    }
}

/// Serves one request, which is all that a connection gets: at rest it could keep others out.
async fn serve_one(admin: &Admin, stream: TcpStream, place: Place) {
    let Some(stream) = admin.access.accept(stream).await else {
        return;
    };
    let service = service_fn(|request| {
        let answer = admin.respond(request, &place);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_header_size(16 * 1024);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        let ended = tokio::time::timeout(CONNECTION_TIME, &mut connection).await;
        if ended.is_ok() || place.stage() != Some(Stage::Profiling) {
            return;
        }
    }
}

/// Whether a path is one of those that probes and scrapers ask for, by any name and address.
fn is_for_everybody(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_told_apart_from_health() {
        let admin = Admin {
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            registry: Registry::new(),
            backends: OnceLock::new(),
            writes: false,
            profiler: None,
            access: Access::default(),
        };
        let status = |path| admin.answer(&Method::GET, path).status().as_u16();
        assert_eq!(
            (status("/healthz"), status("/readyz"), status("/x")),
            (200, 503, 404)
        );
        assert_eq!(status("/backends"), 503);
        assert_eq!(admin.unready(), Some("no table published yet"));
        admin.ready.store(true, Ordering::Relaxed);
        assert_eq!((status("/readyz"), status("/metrics")), (200, 200));
        assert_eq!(
            admin.answer(&Method::POST, "/healthz").status().as_u16(),
            405
        );
        admin.stopping.store(true, Ordering::Relaxed);
        assert_eq!((status("/readyz"), status("/healthz")), (503, 200));
        assert_eq!(admin.unready(), Some("stopping"));
    }
}
