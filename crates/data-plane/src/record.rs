//! What happened to one request: filled in along its way, counted and logged when it ends, however it ends.

use crate::access_log::Line;
use crate::client::ClientConnection;
use crate::error::ProxyError;
use crate::filters;
use crate::hooks;
use crate::publish::RouteTarget;
use crate::upstream::Entered;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Extensions, StatusCode, Version, request};
use http_body::Frame;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The status that is logged when the client left before there was an answer (as nginx logs it).
const CLIENT_CLOSED: u16 = 499;

/// One request from its first byte to the last byte of its answer. Dropping it is what counts and logs it.
pub(crate) struct Record {
    pub(crate) request: RequestInfo,
    pub(crate) outcome: Outcome,
}

/// What was asked, and by whom. Does not change.
pub(crate) struct RequestInfo {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Rc<ClientConnection>,
    pub(crate) parts: request::Parts,
    pub(crate) id: HeaderValue,
    started: Instant,
}

/// What has come of it so far.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) target: Option<Arc<RouteTarget>>,
    pub(crate) attempts: u32,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) upstream_duration: Option<Duration>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// 0 until there is an answer.
    pub(crate) status: u16,
    pub(crate) flag: &'static str,
    /// Its place among the requests of an endpoint.
    pub(crate) entered: Option<Entered>,
    /// The whole answer was handed to the client's connection.
    pub(crate) complete: bool,
    /// What hooks keep.
    pub(crate) notes: Extensions,
}

impl Outcome {
    /// Notes how far the answer has come with this frame, and takes from its trailers what is not for the endpoint to say.
    pub(crate) fn streamed(
        &mut self,
        frame: &mut Option<Result<Frame<Bytes>, ProxyError>>,
        uploaded: u64,
        received: u64,
        ended: bool,
        now: Duration,
    ) {
        if let Some(entered) = &mut self.entered {
            let up = uploaded.saturating_sub(self.request_bytes);
            let down = received.saturating_sub(self.response_bytes);
            entered.moved(up + down, now);
        }
        self.request_bytes = uploaded;
        self.response_bytes = received;
        match frame {
            Some(Err(error)) => {
                if let Some(entered) = &mut self.entered {
                    entered.broke_off(*error, now);
                }
                self.failed(*error);
            }
            Some(Ok(frame)) => {
                self.complete = ended;
                if let Some(trailers) = frame.trailers_mut() {
                    if let Some(target) = &self.target {
                        filters::after_apart(&target.route, trailers);
                    }
                    hooks::on_response_trailers(&self.notes, trailers);
                }
            }
            None => self.complete = true,
        }
    }

    /// Notes why the request did not go as asked.
    pub(crate) fn failed(&mut self, error: ProxyError) {
        self.flag = error.flag();
    }
}

impl Record {
    /// Begins a record.
    pub(crate) fn new(
        worker: Rc<Worker>,
        client: Rc<ClientConnection>,
        parts: request::Parts,
    ) -> Box<Self> {
        let started = client.begin_request();
        worker.stats.requests_active.add(1);
        let id = crate::forwarded_headers::request_id(&parts.headers, client.trusted, &worker.ids);
        Box::new(Self {
            request: RequestInfo {
                worker,
                client,
                parts,
                id,
                started,
            },
            outcome: Outcome::default(),
        })
    }

    fn finish(&mut self) {
        let (request, outcome) = (&self.request, &mut self.outcome);
        let now = Instant::now();
        let duration = now.saturating_duration_since(request.started);
        let cut = request.worker.has_stopped();
        if !outcome.complete && outcome.flag.is_empty() {
            outcome.flag = match cut {
                true => "stopped",
                false => ProxyError::ClientAborted.flag(),
            };
        }
        if let Some(entered) = outcome.entered.as_ref().filter(|_| outcome.complete) {
            entered.was_whole();
        }
        if outcome.status == 0 {
            outcome.status = match cut {
                true => StatusCode::SERVICE_UNAVAILABLE.as_u16(),
                false => CLIENT_CLOSED,
            };
        }
        let worker = &request.worker;
        request.client.end_request(now);
        worker.stats.requests_active.sub(1);
        let stats = outcome
            .target
            .as_ref()
            .map_or_else(|| worker.unrouted_stats(), |target| &target.stats);
        stats.record(
            worker.index,
            outcome.status,
            duration,
            outcome.request_bytes,
            outcome.response_bytes,
        );
        if !worker.settings.hooks.is_empty() {
            hooks::on_log(request, outcome, duration);
        }
        if !worker.log.is_on() {
            return;
        }
        let field = |name: HeaderName| {
            request
                .parts
                .headers
                .get(name)
                .map_or(&b""[..], HeaderValue::as_bytes)
        };
        let uri = &request.parts.uri;
        worker.log.write(&Line {
            client: &request.client.addr_text,
            request_id: request.id.as_bytes(),
            method: request.parts.method.as_str(),
            scheme: request.client.scheme,
            host: uri.authority().map_or_else(
                || field(header::HOST),
                |authority| authority.as_str().as_bytes(),
            ),
            path: uri.path_and_query().map_or("", |path| path.as_str()),
            protocol: match request.parts.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            status: outcome.status,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
            duration,
            user_agent: field(header::USER_AGENT),
            referer: field(header::REFERER),
            route: outcome
                .target
                .as_ref()
                .map_or(&b""[..], |target| &target.log_fields),
            route_name: outcome.target.as_ref().map(|target| {
                let id = &target.route.id;
                (&*id.namespace, &*id.name)
            }),
            flag: outcome.flag,
            attempts: outcome.attempts,
            upstream: outcome.upstream,
            upstream_duration: outcome.upstream_duration,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish();
    }
}
