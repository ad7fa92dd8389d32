//! Sends a request to a cluster: picks endpoints, connects, and tries again where that is safe.
//!
//! Safe means that the request was certainly not executed (nothing was sent), or that executing it twice does no harm (an
//! idempotent method on a connection the upstream had closed, RFC 9110 section 9.2.2). Every attempt starts from the
//! original request, so nothing compounds.
//!
//! Every request is a future of the size of the largest thing it may wait for, and is moved when it is made: what is rare and
//! large (a new connection, a queue) is in a box of its own.

use crate::body::Source;
use crate::error::ProxyError;
use crate::filters;
use crate::grpc;
use crate::h1::connection::Connection;
use crate::h1::deadline::within;
use crate::h1::exchange::{Exchange, Home, ResponseBody};
use crate::h1::head::ResponseHead;
use crate::h2::SharedConnection;
use crate::hooks;
use crate::proxy_header;
use crate::publish::RouteTarget;
use crate::record::{Outcome, RequestInfo};
use crate::request_body::RequestBody;
use crate::request_head::RequestTarget;
use crate::upstream::{Entered, Upstream};
use crate::upstream_io::{ConnectError, UpstreamIo};
use crate::upstream_tls::{Reach, UpstreamConnector, transport};
use crate::wishes::Wishes;
use crate::worker::Worker;
use balance::RetryBudget;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version};
use routing_table::{ProxyVersion, Route, Timeouts, UpstreamProtocol};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// An attempt that ended without a response head.
pub(crate) struct Failure {
    /// What happened.
    pub(crate) error: ProxyError,
    /// Nothing was executed, whatever the method: not one byte was accepted by the socket, or the endpoint says so.
    pub(crate) nothing_sent: bool,
    /// It happened on a connection that had carried a request before, without any byte of an answer: most likely the
    /// upstream closed it while it was at rest.
    pub(crate) stale: bool,
    /// The request's body, for another attempt.
    pub(crate) body: RequestBody,
}

impl Failure {
    fn unsent(error: ProxyError, body: RequestBody) -> Self {
        Self {
            error,
            nothing_sent: true,
            stale: false,
            body,
        }
    }
}

/// The head of an answer, and where its body comes from.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Source,
    /// How long the endpoint was waited for.
    waited: Duration,
}

/// How long an endpoint that could not be connected to is passed over, while there are others.
pub(crate) const PASSED_OVER: Duration = Duration::from_secs(1);

/// What an attempt needs to know.
struct Forwarding<'a> {
    request: &'a RequestInfo,
    target: &'a RequestTarget<'a>,
    route: &'a Route,
    upstream: &'a Arc<Upstream>,
    /// `None` where endpoints are spoken to in the clear.
    tls: Option<Arc<UpstreamConnector>>,
    proxy_header: Option<ProxyVersion>,
    timeouts: Timeouts,
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn forward(
    request: &RequestInfo,
    outcome: &mut Outcome,
    target: &RequestTarget<'_>,
    found: &RouteTarget,
    upstream: &Arc<Upstream>,
    mut body: RequestBody,
) -> Result<Answered, ProxyError> {
    let worker = &request.worker;
    let route = &*found.route;
    let tls = match &found.reach {
        Reach::Tls(connector) => Some(Arc::clone(connector)),
        Reach::Plain => None,
        Reach::Closed => return Err(ProxyError::UpstreamTls),
    };
    let http2 = found.protocol == UpstreamProtocol::Http2;
    let forwarding = Forwarding {
        request,
        target,
        route,
        upstream,
        tls,
        proxy_header: found.proxy_header,
        timeouts: match http2 && grpc::is_call(&request.parts) {
            true => grpc::timeouts(&request.parts.headers, route.timeouts),
            false => route.timeouts,
        },
    };
    if http2 && target.upgrade.is_some() {
        return Err(ProxyError::BadUpgrade);
    }
    let mut tried: Vec<SocketAddr> = Vec::new();
    // After a stale connection the others at rest are as old, so the next attempt makes a new one.
    let mut fresh = false;
    let mut attempts_left = route.retry.attempts;
    let mut again_left = route.retry.same_endpoint;
    let policy = &found.policy;
    let mut wishes = Wishes::read(policy, request, target, body.length());
    let limit = route.limits.in_flight.unwrap_or_default();
    let budget = found.stats.retries(worker.index);
    if let Some(budget) = budget {
        budget.deposit();
    }
    let retries = Retries { worker, budget };
    let hooked = !worker.settings.hooks.is_empty();
    // Kept until the answer has ended: the request counts at this endpoint until then.
    let mut entered: Option<Entered> = None;
    loop {
        let pinned = request.client.take_pinned(upstream.id()).filter(|_| !fresh);
        let addr = match (&pinned, fresh, outcome.upstream) {
            (Some(pinned), ..) => pinned.addr(),
            (None, true, Some(same)) => same,
            _ => {
                drop(entered.take());
                if hooked {
                    let cluster = upstream.id();
                    hooks::on_choice(request, outcome, cluster, &mut tried, &mut wishes);
                }
                let ask = wishes.ask(&tried, limit.requests, worker);
                let queued = || {
                    worker.stats.queued.add(1);
                    request.client.is_queued.set(true);
                };
                let place = upstream.enter(&ask, limit, queued).await;
                request.client.is_queued.set(false);
                entered.insert(place?).addr()
            }
        };
        outcome.attempts += 1;
        outcome.upstream = Some(addr);
        if let Some(entered) = &mut entered {
            entered.begin(worker, Some(&mut body));
        }
        let attempted = if http2 {
            Box::pin(forwarding.attempt_http2(addr, fresh, body)).await
        } else {
            let is_pinned = pinned.is_some();
            let connection = match forwarding.kept(addr, fresh, pinned) {
                Some(connection) => Ok(connection),
                None => Box::pin(forwarding.new_connection(addr)).await,
            };
            match connection {
                Ok(connection) => {
                    let mut exchange = forwarding.exchange(connection, body);
                    match exchange.response(|fields| forwarding.passes(fields)).await {
                        Ok(head) => Ok(forwarding.answered(exchange, head, is_pinned)),
                        Err(error) => Err(exchange.into_failure(error)),
                    }
                }
                Err(error) => Err(Failure::unsent(error, body)),
            }
        };
        let failure = match attempted {
            Ok(mut answered) => {
                outcome.upstream_duration = Some(answered.waited);
                if let Some(entered) = &mut entered {
                    entered.answered(
                        policy,
                        answered.status,
                        &answered.headers,
                        answered.waited,
                        worker.now(),
                    );
                }
                if let Some(affinity) = &policy.affinity
                    && let Some(cookie) =
                        wishes.cookie(affinity, route, addr, request.client.scheme == "https")
                {
                    answered.headers.append(header::SET_COOKIE, cookie);
                }
                outcome.entered = entered;
                return Ok(answered);
            }
            Err(failure) => failure,
        };
        outcome.request_bytes = failure.body.received();
        if failure.error == ProxyError::Overloaded {
            // It is us who have no room for a connection: no endpoint is to blame, and none would do.
            return Err(failure.error);
        }
        if let Some(entered) = &mut entered {
            entered.failed(failure.error, failure.stale);
        }
        body = failure.body;
        let safe = failure.nothing_sent
            || (failure.error == ProxyError::UpstreamClosed
                && is_idempotent(&request.parts.method));
        let unreachable = matches!(
            failure.error,
            ProxyError::Connect | ProxyError::ConnectTimeout
        );
        let mut agreed = || !hooked || hooks::on_retry(request, outcome, addr, failure.error);
        if unreachable && again_left > 0 && agreed() && body.rewind() && retries.allow() {
            // The same one, by a new connection.
            (fresh, again_left) = (true, again_left - 1);
            tokio::time::sleep(route.retry.pause).await;
            continue;
        }
        again_left = route.retry.same_endpoint;
        if failure.stale && !fresh {
            // The upstream closed a connection at rest, which is its right: not counted as an attempt.
            fresh = true;
        } else {
            fresh = false;
            tried.push(addr);
            attempts_left = attempts_left.saturating_sub(1);
        }
        if let Some(entered) = entered.as_ref().filter(|_| unreachable) {
            entered.pass_over(PASSED_OVER, worker.now());
        }
        // Who has ended its side may be gone: it gets what there is, but nothing is begun anew for it.
        let may_be_gone = request.client.has_ended.get() && !failure.nothing_sent;
        if !safe || may_be_gone || attempts_left == 0 || !agreed() || !body.rewind() {
            return Err(failure.error);
        }
        // What the upstream closed at rest it did not see: that costs it nothing to be asked again.
        if fresh {
            worker.stats.retries.add(1);
        } else if !retries.allow() {
            return Err(failure.error);
        }
    }
}

/// What may be sent again, of all requests of a route.
struct Retries<'a> {
    worker: &'a Worker,
    budget: Option<&'a RetryBudget>,
}

impl Retries<'_> {
    /// Whether one more may be, which is counted.
    fn allow(&self) -> bool {
        let now = self.worker.now();
        let allowed = self.budget.is_some_and(|budget| budget.withdraw(now));
        match allowed {
            true => self.worker.stats.retries.add(1),
            false => self.worker.stats.retries_denied.add(1),
        }
        allowed
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
    /// A connection of HTTP/1.1 that there is: the client's own, or one at rest.
    fn kept(
        &self,
        addr: SocketAddr,
        fresh: bool,
        pinned: Option<Connection>,
    ) -> Option<Connection> {
        let worker = &self.request.worker;
        let kept = match pinned {
            // With a PROXY header a connection speaks for one client, so it is neither shared nor kept.
            None if fresh || self.proxy_header.is_some() => None,
            None => worker.pool.take(addr, transport(self.tls.as_ref())),
            pinned => pinned,
        };
        if kept.is_some() {
            worker.stats.upstream_reused.add(1);
        }
        kept
    }

    async fn new_connection(&self, addr: SocketAddr) -> Result<Connection, ProxyError> {
        let io = self.connect(addr).await?;
        let connection = Connection::new(io, addr, transport(self.tls.as_ref()));
        Ok(connection.living_until(self.request.worker.pool.end_of_life()))
    }

    /// The request on its way by this connection.
    fn exchange(&self, mut connection: Connection, body: RequestBody) -> Exchange {
        let (request, worker) = (self.request, &self.request.worker);
        let mut head = worker.pool.head_buffer();
        if self.proxy_header.is_some() {
            connection.introduce();
        }
        self.target.write(&mut head, request, self.route);
        Exchange::new(
            connection,
            head,
            body,
            self.target.method(request),
            self.target.upgrade.is_some(),
            self.timeouts,
        )
    }

    /// Whether an interim response may be passed on, with what is left of its fields: what filters decide of the final one is not the
    /// endpoint's to say before it either. Hooks have not decided yet, and cannot: with them there is none.
    fn passes(&self, fields: &mut HeaderMap) -> bool {
        filters::after_apart(self.route, fields);
        self.request.worker.settings.hooks.is_empty()
    }

    fn answered(&self, exchange: Exchange, head: ResponseHead, is_pinned: bool) -> Answered {
        let waited = exchange.waited();
        let home = self.home(&head, is_pinned);
        let body = ResponseBody::new(exchange, &head, home, &self.request.worker.pool);
        Answered {
            status: head.status,
            headers: head.headers,
            body: Source::Http1(Box::new(body)),
            waited,
        }
    }

    async fn attempt_http2(
        &self,
        addr: SocketAddr,
        fresh: bool,
        body: RequestBody,
    ) -> Result<Answered, Failure> {
        let worker = &self.request.worker;
        let connection = match self.shared_connection(addr, fresh).await {
            Ok(connection) => connection,
            Err(error) => return Err(Failure::unsent(error, body)),
        };
        let Ok(head) = self
            .target
            .http2(self.request, self.route, self.tls.is_some())
        else {
            return Err(Failure::unsent(ProxyError::BadTarget, body));
        };
        // hyper asks for the body when it likes, so the client need not wait for anybody's word.
        body.go_on();
        let (status, headers, body, waited) =
            connection.exchange(head, body, self.timeouts).await?;
        worker.stats.upstream_streams.add(1);
        Ok(Answered {
            status,
            headers,
            body: Source::Http2(body),
            waited,
        })
    }

    /// A connection that takes one more request: one there is, or a new one for all who need one now.
    async fn shared_connection(
        &self,
        addr: SocketAddr,
        fresh: bool,
    ) -> Result<SharedConnection, ProxyError> {
        let worker = &self.request.worker;
        if self.proxy_header.is_some() {
            // It speaks for one client, so it is shared with nobody.
            return self.new_shared_connection(addr).await;
        }
        let transport = transport(self.tls.as_ref());
        let take = || worker.pool.take_shared(addr, transport).filter(|_| !fresh);
        if let Some(connection) = take() {
            worker.stats.upstream_reused.add(1);
            return Ok(connection);
        }
        let connecting = worker.pool.connecting(addr, transport);
        let _turn = connecting.lock().await;
        if let Some(connection) = take() {
            return Ok(connection);
        }
        let connection = self.new_shared_connection(addr).await?;
        worker.pool.share(addr, transport, connection.clone());
        Ok(connection)
    }

    async fn new_shared_connection(
        &self,
        addr: SocketAddr,
    ) -> Result<SharedConnection, ProxyError> {
        let io = self.connect(addr).await?;
        let end_of_life = self.request.worker.pool.end_of_life();
        let connected = SharedConnection::new(io, end_of_life).await;
        connected.map_err(|error| {
            tracing::debug!(%addr, %error, "HTTP/2 cannot begin");
            ProxyError::Connect
        })
    }

    /// Connects, with TLS and a PROXY header where the cluster has them.
    async fn connect(&self, addr: SocketAddr) -> Result<UpstreamIo, ProxyError> {
        let worker = &self.request.worker;
        let slot = worker.endpoint_slot(&self.request.client);
        let slot = slot.ok_or(ProxyError::Overloaded)?;
        let stats = &worker.stats;
        let mut greeting = Vec::new();
        if let Some(version) = self.proxy_header {
            proxy_header::write(&mut greeting, version, self.request.client.ends());
        }
        let connected = UpstreamIo::connect(addr, self.tls.as_deref(), &greeting);
        let error = match within(self.timeouts.connect, connected).await {
            Some(Ok(io)) => {
                stats.upstream_connects.add(1);
                if self.tls.is_some() {
                    self.upstream.tls_succeeded(addr, self.request.worker.now());
                }
                return Ok(io.holding(slot));
            }
            Some(Err(error)) => {
                tracing::debug!(%addr, %error, "connect failed");
                match error {
                    ConnectError::Tcp(_) => ProxyError::Connect,
                    ConnectError::Tls(error) => {
                        let now = self.request.worker.now();
                        self.upstream.tls_failed(addr, &error, now);
                        ProxyError::UpstreamTls
                    }
                }
            }
            None => {
                tracing::debug!(%addr, waited = ?self.timeouts.connect, "connect timed out");
                ProxyError::ConnectTimeout
            }
        };
        stats.upstream_connect_errors.add(1);
        Err(error)
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
