//! Puts the filters of a route into effect, for routes that have some: on the request before it is sent, on the fields of the
//! answer before the client gets them.
//!
//! What each does is in `routing-table/src/filter/`. Here is only what it takes a running data plane for: who the client is,
//! what the limiters remember, and what the client is told.

use crate::error::ProxyError;
use crate::forwarded_headers::{client_addr, end_to_end, is_https};
use crate::publish::RouteTarget;
use crate::rate_limiter::RateLimiter;
use crate::record::RequestInfo;
use crate::request_head::{Changes, RequestTarget};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use routing_table::filter::{Ending, Passage, RateLimit};
use routing_table::{Filter, Route, RouteId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Where a client is sent instead.
pub(crate) struct Elsewhere {
    pub(crate) status: StatusCode,
    pub(crate) location: HeaderValue,
}

/// Does with a request what the filters of its route say. What is sent upstream is changed in `target`.
pub(crate) fn before(
    request: &RequestInfo,
    found: &RouteTarget,
    target: &mut RequestTarget<'_>,
) -> Result<Option<Elsewhere>, ProxyError> {
    let route = &*found.route;
    let (client, headers) = (&request.client, &request.parts.headers);
    let trusted = &request.worker.settings.trusted_proxies;
    let mut limiters = found.limiters.iter();
    let sent = end_to_end(headers);
    let mut passage = Passage {
        client: client_addr(headers, client, trusted),
        is_https: is_https(headers, client),
        host: &target.host,
        path: Cow::Borrowed(&target.path),
        query: target.query(),
        matched: &route.path,
        sent: &sent,
        headers: None,
        upstream_host: None,
    };
    for filter in &route.filters {
        if let Filter::RateLimit(limit) = filter {
            // There is one for each.
            let limiter = limiters.next().ok_or(ProxyError::RateLimited(1))?;
            let admitted = limiter.admit(limit, passage.client, request.worker.clock());
            admitted.map_err(|wait| ProxyError::RateLimited(seconds(wait)))?;
            continue;
        }
        match filter.as_apply().on_request(&mut passage) {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(Ending::Forbidden) => return Err(ProxyError::Forbidden),
            ControlFlow::Break(Ending::BadTarget) => return Err(ProxyError::BadTarget),
            ControlFlow::Break(Ending::Redirect { status, location }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
                return Ok(Some(Elsewhere { status, location }));
            }
        }
    }
    let Passage {
        path,
        headers,
        upstream_host,
        ..
    } = passage;
    let path = match path {
        Cow::Owned(path) => Some(path),
        Cow::Borrowed(_) => None,
    };
    if headers.is_some() || upstream_host.is_some() {
        let host = upstream_host.map(Box::from);
        target.changes = Some(Box::new(Changes { host, headers }));
    }
    if let Some(path) = path {
        target.path = Cow::Owned(path);
    }
    Ok(None)
}

/// Does with the fields of an answer what the filters of its route say. `endpoint`: who gave it.
pub(crate) fn after(route: &Route, headers: &mut HeaderMap, endpoint: Option<SocketAddr>) {
    for filter in &route.filters {
        filter.as_apply().on_response(headers, endpoint);
    }
}

/// Takes what the filters of its route decide of an answer from fields that come apart from its own: its trailers, or those of an
/// interim one before it.
pub(crate) fn after_apart(route: &Route, fields: &mut HeaderMap) {
    for filter in &route.filters {
        filter.as_apply().on_response_apart(fields);
    }
}

/// Whole seconds that are long enough (RFC 9110 section 10.2.3).
fn seconds(wait: Duration) -> u32 {
    let rest = u64::from(wait.subsec_nanos() > 0);
    u32::try_from(wait.as_secs() + rest)
        .unwrap_or(u32::MAX)
        .max(1)
}

/// The field that says when to come again.
pub(crate) fn retry_after(seconds: u32) -> (header::HeaderName, HeaderValue) {
    (header::RETRY_AFTER, HeaderValue::from(seconds))
}

/// The limiters of every object that limits, kept from table to table: whose routes they are, and the time they count in.
#[derive(Debug, Default)]
pub(crate) struct Limiters(HashMap<Key, Arc<RateLimiter>>);

type Key = (&'static str, Arc<str>, Arc<str>, Duration);

impl Limiters {
    /// Those of the next table, as far as it has them: filled by [`Limiters::of`].
    pub(crate) fn next(&mut self) -> NextLimiters<'_> {
        NextLimiters {
            before: std::mem::take(&mut self.0),
            now: &mut self.0,
        }
    }
}

/// The limiters of a table that is being made.
pub(crate) struct NextLimiters<'a> {
    before: HashMap<Key, Arc<RateLimiter>>,
    now: &'a mut HashMap<Key, Arc<RateLimiter>>,
}

impl NextLimiters<'_> {
    /// One for each rate limit of a route, in order. All routes of an object share theirs, as in ingress-nginx.
    pub(crate) fn of(&mut self, route: &Route) -> Box<[Arc<RateLimiter>]> {
        let limits = route.filters.iter().filter_map(|filter| match filter {
            Filter::RateLimit(limit) => Some(limit),
            _ => None,
        });
        limits.map(|limit| self.one(&route.id, limit)).collect()
    }

    fn one(&mut self, id: &RouteId, limit: &RateLimit) -> Arc<RateLimiter> {
        let key = (
            id.kind,
            Arc::clone(&id.namespace),
            Arc::clone(&id.name),
            limit.per,
        );
        let before = &self.before;
        let limiter = self
            .now
            .entry(key)
            .or_insert_with_key(|key| before.get(key).cloned().unwrap_or_default());
        Arc::clone(limiter)
    }
}
