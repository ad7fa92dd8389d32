//! Sends a request to a cluster: picks endpoints, connects, and tries again where that is safe.
//!
//! Safe means that the request was certainly not executed (nothing was sent), or that executing it twice does no harm (an
//! idempotent method on a connection the upstream had closed, RFC 9110 section 9.2.2). Every attempt starts from the
//! original request, so nothing compounds.

use crate::error::ProxyError;
use crate::h1::connection::Connection;
use crate::h1::exchange::{Exchange, Failure, ResponseBody};
use crate::h1::head::ResponseHead;
use crate::proxy_header;
use crate::record::{Outcome, RequestInfo};
use crate::request_body::RequestBody;
use crate::request_head::RequestTarget;
use crate::upstream::Upstream;
use crate::worker::Worker;
use http::Method;
use routing_table::{ProxyVersion, Route};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

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
    let proxy_header = found.and_then(|found| found.proxy_header);
    let mut tried: Vec<SocketAddr> = Vec::new();
    // After a stale connection the others at rest are as old, so the next attempt makes a new one.
    let mut fresh = false;
    let mut attempts_left = route.retry.attempts;
    loop {
        let addr = match (fresh, outcome.upstream) {
            (true, Some(same)) => same,
            _ => upstream.pick(&tried).ok_or(ProxyError::NoEndpoint)?.addr(),
        };
        outcome.attempts += 1;
        outcome.upstream = Some(addr);
        let failure = match attempt(request, target, route, proxy_header, addr, fresh, body).await {
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

async fn attempt(
    request: &RequestInfo,
    target: &RequestTarget<'_>,
    route: &Route,
    proxy_header: Option<ProxyVersion>,
    addr: SocketAddr,
    fresh: bool,
    body: RequestBody,
) -> Result<(ResponseHead, ResponseBody, Duration), Failure> {
    let worker = &request.worker;
    // With a PROXY header a speaks for one client, so it is neither shared nor kept.
    let pooled = if fresh || proxy_header.is_some() {
        None
    } else {
        worker.pool.take(addr)
    };
    let mut connection = match pooled {
        Some(connection) => {
            worker.stats.upstream_reused.add(1);
            connection
        }
        None => match connect(worker, route, addr).await {
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
    if let Some(version) = proxy_header {
        connection.introduce();
        proxy_header::write(&mut head, version, request.client.ends());
    }
    target.write(&mut head, request, route);
    let exchange = Exchange::new(
        connection,
        head,
        body,
        target.method(request),
        target.upgrade.is_some(),
        route.timeouts,
    );
    exchange.response(&worker.pool).await
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
