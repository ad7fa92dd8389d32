//! Sends a request to a cluster: picks endpoints, connects, and tries again where that is safe.
//!
//! Safe means that the request was certainly not executed (nothing was sent), or that executing it twice does no harm (an
//! idempotent method on a connection the upstream had closed, RFC 9110 section 9.2.2). Every attempt starts from the
//! original request, so nothing compounds.

use crate::error::ProxyError;
use crate::h1::connection::Connection;
use crate::h1::exchange::{Exchange, Failure, Home, ResponseBody};
use crate::h1::head::ResponseHead;
use crate::proxy_header;
use crate::record::{Outcome, RequestInfo};
use crate::request_body::RequestBody;
use crate::request_head::RequestTarget;
use crate::upstream::Upstream;
use crate::worker::Worker;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version};
use routing_table::{ProxyVersion, Route};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// What an attempt needs to know.
struct Forwarding<'a> {
    request: &'a RequestInfo,
    target: &'a RequestTarget<'a>,
    route: &'a Route,
    upstream: &'a Upstream,
    proxy_header: Option<ProxyVersion>,
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn forward(
    request: &RequestInfo,
    outcome: &mut Outcome,
    target: &RequestTarget<'_>,
    route: &Route,
    upstream: &Upstream,
    mut body: RequestBody,
) -> Result<(ResponseHead, ResponseBody), ProxyError> {
    let worker = &request.worker;
    let found = outcome.target.as_ref();
    let forwarding = Forwarding {
        request,
        target,
        route,
        upstream,
        proxy_header: found.and_then(|found| found.proxy_header),
    };
    let mut tried: Vec<SocketAddr> = Vec::new();
    // After a stale connection the others at rest are as old, so the next attempt makes a new one.
    let mut fresh = false;
    let mut attempts_left = route.retry.attempts;
    loop {
        let pinned = request.client.take_pinned(upstream.id()).filter(|_| !fresh);
        let addr = match (&pinned, fresh, outcome.upstream) {
            (Some(pinned), ..) => pinned.addr(),
            (None, true, Some(same)) => same,
            _ => upstream.pick(&tried).ok_or(ProxyError::NoEndpoint)?.addr(),
        };
        outcome.attempts += 1;
        outcome.upstream = Some(addr);
        let failure = match forwarding.attempt(addr, fresh, pinned, body).await {
            Ok((head, response_body, waited)) => {
                outcome.upstream_duration = Some(waited);
                return Ok((head, response_body));
            }
            Err(failure) => failure,
        };
        outcome.request_bytes = failure.body.received();
        body = failure.body;
        let safe = failure.nothing_sent
            || (failure.error == ProxyError::UpstreamClosed
                && is_idempotent(&request.parts.method));
        if failure.stale && !fresh {
            // The upstream closed a connection at rest, which is its right: not counted as an attempt.
            fresh = true;
        } else {
            fresh = false;
            tried.push(addr);
            attempts_left = attempts_left.saturating_sub(1);
        }
        if !safe || attempts_left == 0 || !body.rewind() {
            return Err(failure.error);
        }
        worker.stats.retries.add(1);
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    )
}

impl Forwarding<'_> {
    async fn attempt(
        &self,
        addr: SocketAddr,
        fresh: bool,
        pinned: Option<Connection>,
        body: RequestBody,
    ) -> Result<(ResponseHead, ResponseBody, Duration), Failure> {
        let (request, worker) = (self.request, &self.request.worker);
        let is_pinned = pinned.is_some();
        let kept = match pinned {
            // With a PROXY header a connection speaks for one client, so it is neither shared nor kept.
            None if fresh || self.proxy_header.is_some() => None,
            None => worker.pool.take(addr),
            pinned => pinned,
        };
        let mut connection = match kept {
            Some(connection) => {
                worker.stats.upstream_reused.add(1);
                connection
            }
            None => match connect(worker, self.route, addr).await {
                Ok(connection) => connection,
                Err(error) => {
                    return Err(Failure {
                        error,
                        nothing_sent: true,
                        stale: false,
                        body,
                    });
                }
            },
        };
        let mut head = worker.pool.head_buffer();
        if let Some(version) = self.proxy_header {
            connection.introduce();
            proxy_header::write(&mut head, version, request.client.ends());
        }
        self.target.write(&mut head, request, self.route);
        let exchange = Exchange::new(
            connection,
            head,
            body,
            self.target.method(request),
            self.target.upgrade.is_some(),
            self.route.timeouts,
        );
        exchange
            .response(|head| self.home(head, is_pinned), &worker.pool)
            .await
    }

    /// Where the connection goes afterwards: NTLM and Negotiate authenticate a connection, so from their first word on it
    /// belongs to the client (RFC 4559 section 6). A connection of HTTP/2 is shared by many, so there it belongs to nobody.
    fn home(&self, head: &ResponseHead, is_pinned: bool) -> Home {
        let parts = &self.request.parts;
        let asked = || names_connection_scheme(&parts.headers, header::AUTHORIZATION);
        let challenged = || {
            head.status == StatusCode::UNAUTHORIZED
                && names_connection_scheme(&head.headers, header::WWW_AUTHENTICATE)
        };
        if !is_pinned && !asked() && !challenged() {
            Home::Pool
        } else if parts.version == Version::HTTP_2 {
            Home::Nowhere
        } else {
            Home::Client(Rc::clone(&self.request.client), self.upstream.id().clone())
        }
    }
}

fn names_connection_scheme(headers: &HeaderMap, name: HeaderName) -> bool {
    headers.get_all(name).iter().any(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
        })
    })
}

async fn connect(
    worker: &Worker,
    route: &Route,
    addr: SocketAddr,
) -> Result<Connection, ProxyError> {
    let started = Instant::now();
    let stream = match timeout(route.timeouts.connect, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%addr, %error, "connect failed");
            worker.stats.upstream_connect_errors.add(1);
            return Err(ProxyError::Connect);
        }
        Err(_) => {
            tracing::debug!(%addr, waited = ?started.elapsed(), "connect timed out");
            worker.stats.upstream_connect_errors.add(1);
            return Err(ProxyError::ConnectTimeout);
        }
    };
    worker.stats.upstream_connects.add(1);
    // Without it a small request may wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    Ok(Connection::new(stream, addr))
}
