//! Hooks: what a program of one's own does along the life of each request, at five points.
//!
//! A [`Hook`] is compiled in and given to [`crate::Settings::hooks`] (`docs/extending.md`); there is no configuration that adds
//! one. Where there is none a request pays one comparison at each point. Hooks run on the worker, between two steps of a
//! request, and must not wait: whoever blocks here blocks every client of the worker. What panics costs its request (500).
//!
//! | Point | When | What may be done |
//! |---|---|---|
//! | [`Hook::on_request`] | after the filters of the route | change fields that the upstream gets; answer at once |
//! | [`Hook::on_choice`] | before each choice of an endpoint | avoid or prefer endpoints; say what is hashed |
//! | [`Hook::on_retry`] | before another attempt that would be safe | forbid it |
//! | [`Hook::on_response`] | before the head of any answer, our own errors too | change fields that the client gets |
//! | [`Hook::on_log`] | when all is over, however it ended | look |

use crate::error::ProxyError;
use crate::forwarded_headers::{client_addr, end_to_end, is_https};
use crate::record::{Outcome, RequestInfo};
use crate::request_head::{Changes, RequestTarget};
use crate::wishes::Wishes;
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use routing_table::filter::{ChangedFields, may_be_changed, remove_every_spelling};
use routing_table::{ClusterId, RouteId};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What is done with every request. Each point does nothing unless it is written. Hooks are called in the order of
/// [`crate::Settings::hooks`], by all workers at once.
pub trait Hook: Send + Sync + fmt::Debug {
    /// Before a request is sent on, or answered by its route. A [`Reply`] is the answer instead; later hooks are not asked.
    fn on_request(&self, _: &mut Visit<'_>, _: &mut Fields<'_>) -> ControlFlow<Reply> {
        ControlFlow::Continue(())
    }

    /// Before an endpoint is chosen, for the first attempt and for others. Not where there is no choice: a connection that
    /// belongs to the client (NTLM), or the same endpoint once more.
    fn on_choice(&self, _: &mut Visit<'_>, _: &mut EndpointChoice<'_>) {}

    /// Before another attempt, which would be safe and for which attempts are left. `false`: the client gets the error.
    fn on_retry(&self, _: &mut Visit<'_>, _: &Failed) -> bool {
        true
    }

    /// Before the head of an answer is written, whoever gave it. Where there are hooks, interim answers (1xx) of endpoints are not
    /// passed on: they would come before this.
    fn on_response(&self, _: &mut Visit<'_>, _: &Answering, _: &mut Fields<'_>) {}

    /// After the last byte, or after whatever ended the request before.
    fn on_log(&self, _: &mut Visit<'_>, _: &Summary) {}
}

/// A request that a hook looks at.
pub struct Visit<'a> {
    request: &'a RequestInfo,
    route: Option<&'a RouteId>,
    /// What hooks keep for the later points of this request, by type.
    pub notes: &'a mut Extensions,
}

impl fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visit")
            .field("id", self.id())
            .field("method", self.method())
            .field("uri", self.uri())
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

impl Visit<'_> {
    /// The id of the request, as the upstream, the client and the access log have it.
    pub fn id(&self) -> &HeaderValue {
        &self.request.id
    }

    /// Who asks: behind trusted proxies, whom they ask for.
    pub fn client(&self) -> IpAddr {
        let trusted = &self.request.worker.settings.trusted_proxies;
        client_addr(self.headers(), &self.request.client, trusted)
    }

    /// Whether it came by TLS, by the word of a trusted proxy if there is one.
    pub fn is_https(&self) -> bool {
        is_https(self.headers(), &self.request.client)
    }

    /// The method as the client sent it.
    pub fn method(&self) -> &Method {
        &self.request.parts.method
    }

    /// The target as the client sent it: not in normal form, and not rewritten.
    pub fn uri(&self) -> &Uri {
        &self.request.parts.uri
    }

    /// The version it came by.
    pub fn version(&self) -> Version {
        self.request.parts.version
    }

    /// The fields as the client sent them.
    pub fn headers(&self) -> &HeaderMap {
        &self.request.parts.headers
    }

    /// The route it has; `None` where there is none, or none was looked for.
    pub fn route(&self) -> Option<&RouteId> {
        self.route
    }
}

/// The fields of a message on its way. Those that frame it, belong to the connection or are our own word about the client
/// cannot be changed ([`may_be_changed`]).
#[derive(Debug)]
pub struct Fields<'a> {
    had: &'a HeaderMap,
    now: &'a mut Option<ChangedFields>,
}

/// A field that a hook may not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} cannot be changed: it frames the message, belongs to the connection or says who the client is"
)]
pub struct FixedField(HeaderName);

impl Fields<'_> {
    /// All of them, as they are by now.
    pub fn all(&self) -> &HeaderMap {
        self.now
            .as_ref()
            .map_or(self.had, |changed| &changed.fields)
    }

    /// Makes this the only field of the name, also of those whose names differ in `_` for `-`, which some servers take for one.
    /// Trailers of the name are dropped too.
    ///
    /// # Errors
    /// [`FixedField`].
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), FixedField> {
        self.remove(&name)?;
        self.change(&name)?.fields.insert(name, value);
        Ok(())
    }

    /// Adds a field beside those of the name.
    ///
    /// # Errors
    /// [`FixedField`].
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), FixedField> {
        self.change(&name)?.fields.append(name, value);
        Ok(())
    }

    /// Removes every field of the name, as [`Fields::set`] does.
    ///
    /// # Errors
    /// [`FixedField`].
    pub fn remove(&mut self, name: &HeaderName) -> Result<(), FixedField> {
        let changed = self.change(name)?;
        remove_every_spelling(&mut changed.fields, name);
        changed.decided.push(name.clone());
        Ok(())
    }

    fn change(&mut self, name: &HeaderName) -> Result<&mut ChangedFields, FixedField> {
        if may_be_changed(name) {
            let had = self.had;
            let begin = || ChangedFields::of(had.clone());
            Ok(self.now.get_or_insert_with(begin))
        } else {
            Err(FixedField(name.clone()))
        }
    }
}

/// An answer that a hook gives.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status; one below 200 is answered with 500.
    pub status: StatusCode,
    /// Its fields, beside those that frame it. Where there is no `Content-Type` it is plain text.
    pub headers: HeaderMap,
    /// Its body. Default: the status in words.
    pub body: Option<Bytes>,
}

impl Reply {
    /// A status in words.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: None,
        }
    }
}

/// The choice of an endpoint that is about to be made.
#[derive(Debug)]
pub struct EndpointChoice<'a> {
    cluster: &'a ClusterId,
    attempt: u32,
    tried: &'a mut Vec<SocketAddr>,
    wishes: &'a mut Wishes,
}

impl EndpointChoice<'_> {
    /// Whose endpoints they are.
    pub fn cluster(&self) -> &ClusterId {
        self.cluster
    }

    /// Which attempt it is for; the first is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Endpoints that failed this request, and those to be avoided: they get it only if there is no other.
    pub fn tried(&self) -> &[SocketAddr] {
        self.tried
    }

    /// Avoids an endpoint for the rest of this request.
    pub fn avoid(&mut self, endpoint: SocketAddr) {
        if !self.tried.contains(&endpoint) {
            self.tried.push(endpoint);
        }
    }

    /// Prefers an endpoint, if it is up, has room and was not tried. Goes before a cookie's wish.
    pub fn prefer(&mut self, endpoint: SocketAddr) {
        self.wishes.prefer(endpoint);
    }

    /// What policies that hash go by for this request.
    pub fn hash_by(&mut self, key: &[u8]) {
        self.wishes.hash_by(key);
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Which it was; the first is 1.
    pub attempt: u32,
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// Why, in the access log's word: `connect_failed`, `upstream_closed` and so on.
    pub reason: &'static str,
}

/// An answer whose head is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// Its status.
    pub status: StatusCode,
    /// Who gave it; `None`: it is our own.
    pub endpoint: Option<SocketAddr>,
    /// Why it is our own, in the access log's word; empty where nothing went wrong.
    pub reason: &'static str,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The status the client got, or would have; 499 when it left before there was one, 503 when the process stopped before.
    pub status: u16,
    /// Why it did not go as asked, in the access log's word; empty where it did.
    pub reason: &'static str,
    /// The last endpoint that was tried.
    pub endpoint: Option<SocketAddr>,
    /// How many attempts there were.
    pub attempts: u32,
    /// Bytes of body the client sent.
    pub request_bytes: u64,
    /// Bytes of body the client was sent.
    pub response_bytes: u64,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
}

/// The hooks there are, and what is kept for them along a request.
fn each<'a>(
    request: &'a RequestInfo,
    outcome: &'a mut Outcome,
) -> (impl Iterator<Item = &'a Arc<dyn Hook>>, Visit<'a>) {
    let visit = Visit {
        request,
        route: outcome.target.as_ref().map(|target| &target.route.id),
        notes: &mut outcome.notes,
    };
    (request.worker.settings.hooks.iter(), visit)
}

/// [`Hook::on_request`].
pub(crate) fn on_request(
    request: &RequestInfo,
    outcome: &mut Outcome,
    target: &mut RequestTarget<'_>,
) -> Option<Reply> {
    let (mut hooks, mut visit) = each(request, outcome);
    let sent = end_to_end(&request.parts.headers);
    let mut changed = target.changes.as_mut().and_then(|all| all.headers.take());
    let reply = hooks.find_map(|hook| {
        let mut fields = Fields {
            had: &sent,
            now: &mut changed,
        };
        hook.on_request(&mut visit, &mut fields).break_value()
    });
    if changed.is_some() {
        let changes = target.changes.get_or_insert_with(|| {
            Box::new(Changes {
                host: None,
                headers: None,
            })
        });
        changes.headers = changed;
    }
    reply
}

/// [`Hook::on_choice`].
pub(crate) fn on_choice(
    request: &RequestInfo,
    outcome: &mut Outcome,
    cluster: &ClusterId,
    tried: &mut Vec<SocketAddr>,
    wishes: &mut Wishes,
) {
    let attempt = outcome.attempts + 1;
    let (hooks, mut visit) = each(request, outcome);
    for hook in hooks {
        let mut choice = EndpointChoice {
            cluster,
            attempt,
            tried: &mut *tried,
            wishes: &mut *wishes,
        };
        hook.on_choice(&mut visit, &mut choice);
    }
}

/// [`Hook::on_retry`]: whether all of them agree.
pub(crate) fn on_retry(
    request: &RequestInfo,
    outcome: &mut Outcome,
    endpoint: SocketAddr,
    error: ProxyError,
) -> bool {
    let failed = Failed {
        attempt: outcome.attempts,
        endpoint,
        reason: error.flag(),
    };
    let (mut hooks, mut visit) = each(request, outcome);
    hooks.all(|hook| hook.on_retry(&mut visit, &failed))
}

/// [`Hook::on_response`]. `endpoint`: who gave the answer.
///
/// # Errors
/// A hook panicked.
pub(crate) fn on_response(
    request: &RequestInfo,
    outcome: &mut Outcome,
    status: StatusCode,
    endpoint: Option<SocketAddr>,
    headers: &mut HeaderMap,
) -> Result<(), ProxyError> {
    let answering = Answering {
        status,
        endpoint,
        reason: outcome.flag,
    };
    let (hooks, mut visit) = each(request, outcome);
    let mut changed = None;
    let all = AssertUnwindSafe(|| {
        for hook in hooks {
            let mut fields = Fields {
                had: headers,
                now: &mut changed,
            };
            hook.on_response(&mut visit, &answering, &mut fields);
        }
    });
    catch_unwind(all).map_err(|_| ProxyError::Panic)?;
    if let Some(changed) = changed {
        *headers = changed.fields;
        outcome.notes.insert(DecidedOfAnswer(changed.decided));
    }
    Ok(())
}

/// The names that hooks set or removed of an answer, kept for its trailers.
#[derive(Clone)]
struct DecidedOfAnswer(Vec<HeaderName>);

/// Takes from the trailers of an answer what [`Hook::on_response`] decided.
pub(crate) fn on_response_trailers(notes: &Extensions, trailers: &mut HeaderMap) {
    let decided = notes.get::<DecidedOfAnswer>();
    for name in decided.iter().flat_map(|decided| &decided.0) {
        remove_every_spelling(trailers, name);
    }
}

/// [`Hook::on_log`]. What panics here costs nothing any more: the request is over.
pub(crate) fn on_log(request: &RequestInfo, outcome: &mut Outcome, duration: Duration) {
    let summary = Summary {
        status: outcome.status,
        reason: outcome.flag,
        endpoint: outcome.upstream,
        attempts: outcome.attempts,
        request_bytes: outcome.request_bytes,
        response_bytes: outcome.response_bytes,
        duration,
    };
    let (hooks, mut visit) = each(request, outcome);
    let all = AssertUnwindSafe(|| hooks.for_each(|hook| hook.on_log(&mut visit, &summary)));
    // The process's own hook of panics has written what it was.
    let _ = catch_unwind(all);
}
