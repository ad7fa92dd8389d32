//! HTTP/2 towards endpoints. hyper speaks it; here are the connections that many requests share, and one request on one.
//!
//! A connection is shared by the requests of one worker. It takes another request while it has fewer streams than the endpoint
//! allows; after that a second connection is made.

use crate::answer_fields::{check_http2, check_http2_trailers, is_bodiless};
use crate::error::ProxyError;
use crate::forward::Failure;
use crate::h1::deadline::Deadline;
use crate::request_body::{BodyError, RequestBody};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use routing_table::Timeouts;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// Most requests at once on one connection; an endpoint may allow fewer.
const MAX_STREAMS: u32 = 128;
/// Bytes of a response body that an endpoint may send ahead of us, for a stream and for a connection. A connection has room for
/// all its streams: otherwise a few clients that stop reading would hold up everybody else's answers on it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// Largest response head in bytes.
const MAX_HEAD: u32 = 64 * 1024;

/// Runs what HTTP/2 wants to run apart: on this thread, like everything else of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnThisThread;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A connection to an endpoint. Cheap to clone; all clones are the same connection.
#[derive(Debug, Clone)]
pub(crate) struct SharedConnection {
    sender: SendRequest<Upload>,
    load: Rc<Load>,
}

/// What a connection carries.
#[derive(Debug)]
struct Load {
    streams: Cell<usize>,
    /// What the endpoint allows.
    max_streams: Cell<usize>,
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
    /// From then on it takes no more requests.
    end_of_life: Option<Instant>,
}

impl SharedConnection {
    /// Begins HTTP/2 on a connected socket, which may be used so long.
    pub(crate) async fn new(
        io: impl AsyncRead + AsyncWrite + Unpin + 'static,
        end_of_life: Option<Instant>,
    ) -> hyper::Result<Self> {
        let (sender, connection) = http2::Builder::new(OnThisThread)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(64 * 1024)
            .handshake(TokioIo::new(io))
            .await?;
        let load = Rc::new(Load {
            streams: Cell::new(0),
            max_streams: Cell::new(connection.current_max_send_streams()),
            requests: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            end_of_life,
        });
        let told = Rc::clone(&load);
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection);
            let ended = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                told.max_streams.set(connection.current_max_send_streams());
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "HTTP/2 connection to upstream ended");
            }
        });
        Ok(Self { sender, load })
    }

    /// Whether it takes another request now, of at most so many in its life.
    pub(crate) fn has_room(&self, max_requests: u32, now: Instant) -> bool {
        self.is_open()
            && self.load.streams.get() < self.load.max_streams.get().min(MAX_STREAMS as usize)
            && self.load.requests.get() < max_requests
            && !self.has_lived(now)
    }

    /// Whether it is open, as far as one knows.
    pub(crate) fn is_open(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether it has been used for long enough.
    pub(crate) fn has_lived(&self, now: Instant) -> bool {
        self.load.end_of_life.is_some_and(|end| end <= now)
    }

    /// Whether it has carried nothing for this long.
    pub(crate) fn has_rested(&self, now: Instant, limit: Duration) -> bool {
        self.load.streams.get() == 0
            && now.saturating_duration_since(self.load.idle_since.get()) >= limit
    }

    /// Sends a request and waits for the head of its response; tells also how long the endpoint was waited for. `head` has
    /// everything but the body.
    pub(crate) async fn exchange(
        mut self,
        head: Request<()>,
        body: RequestBody,
        timeouts: Timeouts,
    ) -> Result<(StatusCode, HeaderMap, ResponseBody, Duration), Failure> {
        let reused = self.load.requests.get() > 0;
        let stream = Stream::begin(&self.load);
        let body = Rc::new(SharedBody {
            body: RefCell::new(Some(body)),
            ended_at: Cell::new(None),
        });
        let method = head.method().clone();
        let request = head.map(|()| Upload(Rc::clone(&body)));
        let started = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(started + timeouts.first_byte);
        let mut sending = pin!(self.sender.try_send_request(request));
        let sent = poll_fn(|cx| {
            loop {
                if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                    return Poll::Ready(Ok(sent));
                }
                ready!(deadline.poll(cx));
                // The endpoint's time begins when it has the whole request.
                let until = body.sent_since().unwrap_or(started) + timeouts.first_byte;
                if until <= Instant::now() {
                    return Poll::Ready(Err(ProxyError::FirstByteTimeout));
                }
                deadline.set(until);
            }
        })
        .await;
        let (error, not_executed) = match sent {
            Ok(Ok(response)) => {
                let waited = started.elapsed();
                let (parts, incoming) = response.into_parts();
                let (status, mut headers) = (parts.status, parts.headers);
                match check_http2(status, &mut headers) {
                    Ok(()) => {
                        let incoming = (!is_bodiless(&method, status)).then_some(incoming);
                        let body = ResponseBody::new(incoming, body, stream, timeouts.idle);
                        return Ok((status, headers, body, waited));
                    }
                    Err(error) => (ProxyError::BadResponse(error), false),
                }
            }
            Ok(Err(error)) => {
                let unsent = error.message().is_some();
                let error = error.into_error();
                tracing::debug!(%error, "HTTP/2 request failed");
                (ProxyError::UpstreamClosed, unsent || is_unprocessed(&error))
            }
            Err(error) => (error, false),
        };
        // Taking it out stops an upload that is still under way. It is there: otherwise only a response body takes it out, and
        // there is no response that anybody gets.
        let body = body.body.take().expect("only taken once");
        Err(Failure {
            error: body.failed().map_or(error, ProxyError::from),
            nothing_sent: not_executed,
            stale: reused && not_executed,
            body,
        })
    }
}

/// Whether the endpoint says that it did not look at the request (RFC 9113 sections 6.8 and 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(|error| {
            error.is_remote()
                && (error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away())
        })
}

/// A stream that counts for as long as it lives.
#[derive(Debug)]
struct Stream(Rc<Load>);

impl Stream {
    fn begin(load: &Rc<Load>) -> Self {
        load.streams.set(load.streams.get() + 1);
        load.requests.set(load.requests.get() + 1);
        Self(Rc::clone(load))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// A request's body, shared so that it is still there for another attempt. Taken out, it stops the upload.
#[derive(Debug)]
struct SharedBody {
    body: RefCell<Option<RequestBody>>,
    /// When all of it had been handed out.
    ended_at: Cell<Option<Instant>>,
}

impl SharedBody {
    /// Since when the endpoint has all that the client has sent; `None`: since the beginning.
    fn sent_since(&self) -> Option<Instant> {
        match self.body.borrow().as_ref() {
            Some(body) if body.waits_for_client() => Some(Instant::now()),
            _ => self.ended_at.get(),
        }
    }

    fn uploaded(&self) -> u64 {
        self.body.borrow().as_ref().map_or(0, RequestBody::received)
    }

    fn failed(&self) -> Option<BodyError> {
        self.body.borrow().as_ref().and_then(RequestBody::failed)
    }
}

/// A request's body as hyper takes it.
#[derive(Debug)]
pub(crate) struct Upload(Rc<SharedBody>);

/// The upload cannot go on; the reason is in the body.
#[derive(Debug, thiserror::Error)]
#[error("request body ended early")]
pub(crate) struct UploadFailed;

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFailed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        let mut place = self.0.body.borrow_mut();
        let Some(body) = place.as_mut() else {
            return Poll::Ready(Some(Err(UploadFailed)));
        };
        let piece = ready!(body.poll_piece(cx));
        if body.has_nothing_left() {
            self.0.ended_at.set(Some(Instant::now()));
        }
        Poll::Ready(match piece {
            Some(Ok(piece)) => Some(Ok(Frame::data(piece))),
            Some(Err(_)) => Some(Err(UploadFailed)),
            None => body
                .hand_out_trailers()
                .map(|trailers| Ok(Frame::trailers(trailers.clone()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .body
            .borrow()
            .as_ref()
            .is_some_and(RequestBody::has_nothing_left)
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.0.body.borrow().as_ref().and_then(RequestBody::length);
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A response's body. Dropped early, it resets its stream and leaves the connection to the others.
pub(crate) struct ResponseBody {
    /// Gone where the answer has no content: what comes all the same is nobody's.
    incoming: Option<Incoming>,
    upload: Rc<SharedBody>,
    received: u64,
    idle: Duration,
    deadline: Deadline,
    _stream: Stream,
}

impl ResponseBody {
    fn new(
        incoming: Option<Incoming>,
        upload: Rc<SharedBody>,
        stream: Stream,
        idle: Duration,
    ) -> Self {
        if let Some(body) = upload.body.borrow_mut().as_mut() {
            body.stop_watching_the_clock();
        }
        Self {
            incoming,
            upload,
            received: 0,
            idle,
            deadline: Deadline::default(),
            _stream: stream,
        }
    }

    /// Bytes of body read so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of the request's body that the client had sent.
    pub(crate) fn uploaded(&self) -> u64 {
        self.upload.uploaded()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Nobody waits for the answer any more, so the upload stops too.
        self.upload.body.take();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => {
                if !this.deadline.is_set() {
                    this.deadline.set(Instant::now() + this.idle);
                }
                ready!(this.deadline.poll(cx));
                Poll::Ready(Some(Err(ProxyError::IdleTimeout)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(mut frame))) => {
                this.deadline.clear();
                if let Some(trailers) = frame.trailers_mut() {
                    check_http2_trailers(trailers);
                }
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "reading an HTTP/2 response failed");
                let failed = this.upload.failed();
                Poll::Ready(Some(Err(
                    failed.map_or(ProxyError::UpstreamCut, ProxyError::from)
                )))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl From<BodyError> for ProxyError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Client => Self::ClientAborted,
            BodyError::Timeout => Self::ClientBodyTimeout,
            BodyError::TooLarge => Self::BodyTooLarge,
        }
    }
}
