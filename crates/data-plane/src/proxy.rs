//! A request's whole life, on one screen.
//!
//! Read the target, find the route with one load of the table, apply its policy, forward, answer. Errors become answers
//! here and nowhere else.

use crate::body::{AnswerBody, Source};
use crate::client::ClientConnection;
use crate::error::ProxyError;
use crate::forward::forward;
use crate::forwarded_headers::is_loop;
use crate::record::Record;
use crate::request_body::RequestBody;
use crate::request_head::RequestTarget;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use routing_table::Action;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

/// Answers one request.
pub(crate) async fn proxy(
    worker: Rc<Worker>,
    client: Rc<ClientConnection>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut record = Record::new(worker, client, parts);
    let answer = match answer(&mut record, body).await {
        Ok(answer) => answer,
        Err(error) => {
            record.outcome.failed(error);
            Answer::of(error)
        }
    };
    Ok(respond(record, answer))
}

/// What the client gets.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    source: Source,
    /// The connection ends with it (HTTP/1.1).
    close: bool,
}

async fn answer(record: &mut Record, body: Incoming) -> Result<Answer, ProxyError> {
    let Record { request, outcome } = record;
    let target = RequestTarget::read(&request.parts)?;
    let (found, admitted) = request
        .worker
        .reader
        .read(|table| table.find(&request.client, &target.host, &target.path));
    let found = found.ok_or(admitted.err().unwrap_or(ProxyError::NoRoute))?;
    let found = outcome.target.insert(found);
    admitted?;
    let found = Arc::clone(found);
    let route = &found.route;
    let upstream = match (&route.action, &found.upstream) {
        (Action::Respond(response), _) => {
            outcome.flag = response.reason;
            let status =
                StatusCode::from_u16(response.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return Ok(Answer::own(status));
        }
        (Action::Forward(_), Some(upstream)) => upstream,
        (Action::Forward(_), None) => return Err(ProxyError::NoEndpoint),
    };
    if is_loop(&request.parts.headers) {
        return Err(ProxyError::Loop);
    }
    let body = RequestBody::new(body, route.limits.request_body);
    if body.is_too_large() {
        return Err(ProxyError::BodyTooLarge);
    }
    let (head, body) = forward(request, outcome, &target, route, upstream, body).await?;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        source: Source::Upstream(body),
        close: false,
    })
}

impl Answer {
    /// An answer of our own: the status in words. Says nothing of the request or of what is behind us.
    fn own(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Error");
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        let text = Bytes::from(format!("{} {reason}\n", status.as_u16()));
        Self {
            status,
            headers,
            source: Source::Own(text),
            close: false,
        }
    }

    fn of(error: ProxyError) -> Self {
        let mut answer = Self::own(error.status());
        answer.close = error.closes_downstream();
        if error == ProxyError::Method {
            // RFC 9110 section 15.5.6: a 405 says what is allowed.
            answer.headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        answer
    }
}

fn respond(mut record: Box<Record>, answer: Answer) -> Response<AnswerBody> {
    let (worker, client) = (&record.request.worker, &record.request.client);
    let last = answer.close
        || worker.is_leaving()
        || client.requests() >= worker.settings.requests_per_connection;
    let http1 = record.request.parts.version <= Version::HTTP_11;
    record.outcome.status = answer.status.as_u16();
    let mut response = Response::new(AnswerBody::new(answer.source, record));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if last && http1 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
