//! A request's whole life, on one screen.
//!
//! Read the target, find the route with one load of the table, apply its filters and policy, forward, answer. Errors become answers
//! here and nowhere else, but for heads that are no requests (`h1/server`).

use crate::answer_fields::has_no_content;
use crate::body::{AnswerBody, Source};
use crate::client::ClientConnection;
use crate::error::ProxyError;
use crate::filters;
use crate::forward::forward;
use crate::forwarded_headers::is_loop;
use crate::grpc;
use crate::h1::head::HeadError;
use crate::hooks::{self, Reply};
use crate::record::Record;
use crate::request_body::{ClientBody, Pace, RequestBody};
use crate::request_head::{self, RequestTarget};
use crate::upgrade::WEBSOCKET_VERSION;
use crate::worker::Worker;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use routing_table::filter::may_be_changed;
use routing_table::{Action, UpstreamProtocol};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

/// The form of our own answers.
pub(crate) const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Who answers, without a version.
pub(crate) const SERVER: &str = "tidegate";

/// Answers one request, whichever protocol it came by.
pub(crate) async fn proxy(
    worker: Rc<Worker>,
    client: Rc<ClientConnection>,
    parts: request::Parts,
    body: ClientBody,
) -> Response<AnswerBody> {
    let mut record = Record::new(worker, client, parts);
    // What a defect leaves behind is this request's alone: the record is finished whatever happens, everything else is dropped.
    let answered = {
        // Pinned where it is made: `await` alone would move it.
        let mut answered = pin!(AssertUnwindSafe(answer(&mut record, body)).catch_unwind());
        answered.as_mut().await
    };
    let mut answer = match answered.unwrap_or(Err(ProxyError::Panic)) {
        // To CONNECT any 2xx means that the stream is a tunnel (RFC 9110 section 9.3.6); without 101 there is none.
        Ok(answer) if is_connect(&record) && answer.status.is_success() => {
            failed(&mut record, ProxyError::BadResponse(HeadError::Status))
        }
        Ok(answer) => answer,
        Err(error) => failed(&mut record, error),
    };
    if !record.request.worker.settings.hooks.is_empty() {
        let Record { request, outcome } = &mut *record;
        let own = matches!(answer.source, Source::Own(_));
        let endpoint = outcome.upstream.filter(|_| !own);
        let headers = &mut answer.headers;
        if let Err(error) = hooks::on_response(request, outcome, answer.status, endpoint, headers) {
            answer = failed(&mut record, error);
        }
    }
    respond(record, answer)
}

fn failed(record: &mut Record, error: ProxyError) -> Answer {
    record.outcome.failed(error);
    // A call fails with status 200.
    let is_call = grpc::is_call(&record.request.parts) && !is_connect(record);
    Answer::of(error, is_call)
}

/// Whether a WebSocket is asked for on an HTTP/2 stream; without that nothing of a CONNECT is answered with success.
fn is_connect(record: &Record) -> bool {
    record.request.parts.method == Method::CONNECT
}

/// What the client gets.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    source: Source,
    /// The connection ends with it (HTTP/1.1).
    close: bool,
}

async fn answer(record: &mut Record, body: ClientBody) -> Result<Answer, ProxyError> {
    let Record { request, outcome } = record;
    if request.parts.method == Method::OPTIONS && request.parts.uri.path() == "*" {
        // RFC 9110 section 9.3.7: about the server as a whole, and that is us.
        request_head::check(&request.client, &request.parts)?;
        return Ok(Answer::own(StatusCode::OK));
    }
    let mut target = RequestTarget::read(&request.client, &request.parts, !body.is_empty())?;
    let fields = target.fields(&request.parts);
    let (found, admitted) = request
        .worker
        .reader
        .read(|table| table.find(&request.client, &target.host, &target.path, &fields));
    let found = found.ok_or(admitted.err().unwrap_or(ProxyError::NoRoute))?;
    let found = outcome.target.insert(found);
    admitted?;
    let found = Arc::clone(found);
    let route = &found.route;
    #[cfg(test)]
    crate::tests::panic_if_asked_to(&request.parts);
    if !route.filters.is_empty()
        && let Some(elsewhere) = filters::before(request, &found, &mut target)?
    {
        outcome.flag = "redirected";
        let mut answer = Answer::own(elsewhere.status);
        answer.headers.insert(header::LOCATION, elsewhere.location);
        return Ok(answer);
    }
    if !request.worker.settings.hooks.is_empty()
        && let Some(reply) = hooks::on_request(request, outcome, &mut target)
    {
        outcome.flag = "hook";
        return Ok(Answer::by_hook(reply));
    }
    let upstream = match (&route.action, &found.upstream) {
        (Action::Respond(response), _) => {
            outcome.flag = response.reason;
            let status =
                StatusCode::from_u16(response.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let mut answer = Answer::own(status);
            filters::after(route, &mut answer.headers, None);
            return Ok(answer);
        }
        (Action::Forward(_), Some(upstream)) => upstream,
        (Action::Forward(_), None) => return Err(ProxyError::NoEndpoint),
    };
    if is_loop(&request.parts.headers) {
        return Err(ProxyError::Loop);
    }
    let timeouts = &request.worker.settings.client_timeouts;
    // Either side of a call may rest for as long as the call lives, where there can be one.
    let is_call = grpc::is_call(&request.parts) && found.protocol == UpstreamProtocol::Http2;
    let pace = (!is_call).then_some(Pace {
        idle: timeouts.body_idle,
        min_rate: timeouts.body_min_rate,
    });
    let mut body = RequestBody::new(body, route.limits.request_body, pace);
    body.withhold(target.take_decided());
    if body.is_too_large() {
        return Err(ProxyError::BodyTooLarge);
    }
    let mut answered = forward(request, outcome, &target, &found, upstream, body).await?;
    if !route.filters.is_empty() {
        filters::after(route, &mut answered.headers, outcome.upstream);
    }
    Ok(Answer {
        status: answered.status,
        headers: answered.headers,
        source: answered.body,
        // What a client has sent in the belief that it speaks another protocol is no request.
        close: target.upgrade.is_some(),
    })
}

impl Answer {
    /// An answer of our own: the status in words. Says nothing of the request or of what is behind us.
    fn own(status: StatusCode) -> Self {
        let text = words(status);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, PLAIN_TEXT);
        Self {
            status,
            headers,
            source: Source::Own(Bytes::from(text)),
            close: false,
        }
    }

    /// What a hook answers, as far as an answer may be that.
    fn by_hook(reply: Reply) -> Self {
        if reply.status.is_informational() {
            return Self::own(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let mut answer = Self::own(reply.status);
        for name in reply.headers.keys().filter(|name| may_be_changed(name)) {
            answer.headers.remove(name);
            for value in reply.headers.get_all(name) {
                answer.headers.append(name, value.clone());
            }
        }
        if let Some(body) = reply.body {
            answer.source = Source::Own(body);
        }
        answer
    }

    /// Takes what we wrote ourselves away where an answer has no content: those to HEAD, and those with 204, 205 and 304
    /// (RFC 9110 sections 9.3.2, 15.3.5, 15.3.6 and 15.4.5). On HTTP/2 it would be an error of the stream.
    fn without_unwanted_content(mut self, method: &Method) -> Self {
        let by_status = has_no_content(self.status) || self.status == StatusCode::RESET_CONTENT;
        if let Source::Own(bytes) = &mut self.source
            && (by_status || method == Method::HEAD)
        {
            bytes.clear();
            if by_status {
                self.headers.remove(header::CONTENT_TYPE);
            }
        }
        self
    }

    fn of(error: ProxyError, is_call: bool) -> Self {
        if is_call {
            return Self {
                status: StatusCode::OK,
                headers: grpc::answer(error.status(), error.flag()),
                source: Source::Own(Bytes::new()),
                close: error.closes_downstream(),
            };
        }
        let mut answer = Self::own(error.status());
        answer.close = error.closes_downstream();
        if error == ProxyError::Method {
            // RFC 9110 section 15.5.6: a 405 says what is allowed.
            answer.headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        if error == ProxyError::Overloaded {
            // RFC 9110 section 10.2.3.
            answer
                .headers
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let ProxyError::RateLimited(seconds) = error {
            let (name, value) = filters::retry_after(seconds);
            answer.headers.insert(name, value);
        }
        if error == ProxyError::UpgradeVersion {
            // RFC 6455 section 4.4: and a 426 what it should have been.
            answer
                .headers
                .insert(header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION);
        }
        answer
    }
}

/// A status in words.
pub(crate) fn words(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("Error");
    format!("{} {reason}\n", status.as_u16())
}

fn respond(mut record: Box<Record>, answer: Answer) -> Response<AnswerBody> {
    let (worker, client) = (&record.request.worker, &record.request.client);
    let last = answer.close
        || worker.is_leaving()
        || client.requests() >= worker.settings.requests_per_connection;
    let http1 = record.request.parts.version <= Version::HTTP_11;
    record.outcome.status = answer.status.as_u16();
    if answer.status == StatusCode::SWITCHING_PROTOCOLS && !http1 {
        return connect(record, answer);
    }
    let answer = answer.without_unwanted_content(&record.request.parts.method);
    let mut response = Response::new(AnswerBody::new(answer.source, record));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if !http1 {
        response
            .headers_mut()
            .insert(header::SERVER, HeaderValue::from_static(SERVER));
    }
    if last && http1 && answer.status != StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Opens a WebSocket on an HTTP/2 stream (RFC 8441 section 5): 200 instead of 101, and the stream is the tunnel.
fn connect(mut record: Box<Record>, answer: Answer) -> Response<AnswerBody> {
    record.outcome.status = StatusCode::OK.as_u16();
    let stream = record.request.parts.extensions.remove::<OnUpgrade>();
    let mut response = Response::new(AnswerBody::empty());
    *response.headers_mut() = answer.headers;
    response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    let tunnel = AnswerBody::new(answer.source, record).into_tunnel();
    if let (Some(stream), Some(tunnel)) = (stream, tunnel) {
        tokio::task::spawn_local(async move {
            if let Ok(stream) = stream.await {
                tunnel.run(TokioIo::new(stream), BytesMut::new()).await;
            }
        });
    }
    response
}
