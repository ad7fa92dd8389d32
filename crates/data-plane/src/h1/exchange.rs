//! One request and its response on a connection, both directions at once, on one task.
//!
//! While the response is read the request's body is still being sent, so an upstream may answer early. A connection is
//! used again only when both directions reached their framed end; anything else closes it.

use super::chunked::{Decoded, Decoder};
use super::connection::{Connection, READ_BODY, READ_LONG_BODY};
use super::head::{self, Framing, ResponseHead};
use super::incoming::READ_HEAD;
use super::outgoing::Outgoing;
use crate::client::{ClientConnection, Pinned};
use crate::error::ProxyError;
use crate::forward::Failure;
use crate::pool::Pool;
use crate::request_body::{BodyError, RequestBody};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use routing_table::{ClusterId, Timeouts};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Interim responses (1xx) that are read past before the upstream is given up.
const MAX_INTERIM: u32 = 100;
/// How long a client that asked for `100 Continue` waits for the upstream's word; then it is told to go on all the same,
/// because an upstream need not know that expectation (RFC 9110 section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A request being sent, before its response head has come.
pub(crate) struct Exchange {
    connection: Connection,
    upload: Upload,
    method: Method,
    upgrade: bool,
    timeouts: Timeouts,
    received_anything: bool,
    /// Since when nothing has moved; `None` while something does. Read from the clock only when there is something to wait for.
    waiting_since: Option<Instant>,
}

impl Exchange {
    /// Starts to send `head` and the body. `head` is complete but for the framing field, which is added here; `upgrade`: it
    /// asks for another protocol.
    pub(crate) fn new(
        mut connection: Connection,
        mut head: Vec<u8>,
        body: RequestBody,
        method: Method,
        upgrade: bool,
        timeouts: Timeouts,
    ) -> Self {
        connection.begin();
        let chunked = body.length().is_none();
        let holding = body.waits_for_continue();
        if holding {
            head.extend_from_slice(b"expect: 100-continue\r\n");
        }
        if chunked {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        } else if !body.is_empty() || matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            // RFC 9110 section 8.6: a POST without content still says so.
            head.extend_from_slice(b"content-length: ");
            head.extend_from_slice(
                itoa::Buffer::new()
                    .format(body.length().unwrap_or(0))
                    .as_bytes(),
            );
            head.extend_from_slice(b"\r\n\r\n");
        } else {
            head.extend_from_slice(b"\r\n");
        }
        let left = body.length().unwrap_or(u64::MAX);
        let upload = Upload {
            out: Outgoing::new(head),
            body,
            chunked,
            left,
            state: if holding {
                UploadState::Holding
            } else {
                UploadState::Sending
            },
            sent: false,
            moved: false,
        };
        Self {
            connection,
            upload,
            method,
            upgrade,
            timeouts,
            received_anything: false,
            waiting_since: None,
        }
    }

    /// Waits for the response head. After it comes [`ResponseBody::new`] or [`Exchange::into_failure`]. `passes`: whether an interim
    /// response may be passed on, with what it leaves of its fields.
    pub(crate) async fn response(
        &mut self,
        passes: impl Fn(&mut HeaderMap) -> bool,
    ) -> Result<ResponseHead, ProxyError> {
        let mut interim = 0;
        loop {
            match poll_fn(|cx| self.poll_head(cx)).await {
                Ok(mut head)
                    if head.status.is_informational() && head.framing != Framing::Tunnel =>
                {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(ProxyError::BadResponse(head::HeadError::Status));
                    }
                    if head.status == StatusCode::CONTINUE {
                        self.upload.go_on();
                    } else if passes(&mut head.headers) {
                        self.upload.body.send_interim(&head);
                    }
                }
                other => return other,
            }
        }
    }

    /// How long the endpoint has been waited for.
    pub(crate) fn waited(&self) -> Duration {
        self.waiting_since
            .map(|since| since.elapsed())
            .unwrap_or_default()
    }

    /// What is left where no head came.
    pub(crate) fn into_failure(self, error: ProxyError) -> Failure {
        Failure {
            error,
            nothing_sent: !self.upload.sent,
            stale: self.connection.is_reused() && !self.received_anything,
            body: self.upload.body,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ProxyError>> {
        if let Poll::Ready(Err(error)) = self.upload.poll(cx, &mut self.connection) {
            return Poll::Ready(Err(error));
        }
        if std::mem::take(&mut self.upload.moved) {
            self.waiting_since = None;
        }
        loop {
            if !self.connection.buffer.is_empty() {
                match head::parse(&mut self.connection.buffer, &self.method, self.upgrade) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(ProxyError::BadResponse(error))),
                }
            }
            match self.connection.poll_fill(cx, READ_HEAD) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.closed())),
                Poll::Ready(Ok(_)) => self.received_anything = true,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "reading from upstream failed");
                    return Poll::Ready(Err(self.closed()));
                }
                Poll::Pending => {
                    if self.upload.state == UploadState::WaitingForClient {
                        // The body has a deadline of its own, and the upstream cannot answer what it has not seen.
                        self.waiting_since = None;
                        return Poll::Pending;
                    }
                    if self.waiting_since.is_none() {
                        let now = Instant::now();
                        self.waiting_since = Some(now);
                        let wait = match self.upload.state {
                            UploadState::Holding => CONTINUE_WAIT,
                            _ => self.timeouts.first_byte,
                        };
                        self.connection.deadline.set(now + wait);
                    }
                    if self.connection.deadline.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if self.upload.state != UploadState::Holding {
                        return Poll::Ready(Err(ProxyError::FirstByteTimeout));
                    }
                    self.upload.go_on();
                    return self.poll_head(cx);
                }
            }
        }
    }

    fn closed(&self) -> ProxyError {
        if self.received_anything {
            ProxyError::BadResponse(head::HeadError::Malformed)
        } else {
            ProxyError::UpstreamClosed
        }
    }
}

/// The sending half.
struct Upload {
    out: Outgoing,
    body: RequestBody,
    chunked: bool,
    /// Bytes of the declared length not yet taken from the body.
    left: u64,
    state: UploadState,
    /// Whether the socket accepted anything.
    sent: bool,
    /// Something was written since this was last looked at.
    moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    /// The client holds its body back until the upstream asks for it.
    Holding,
    /// There is something to write.
    Sending,
    /// Everything that came was written.
    WaitingForClient,
    /// All of the body is in `out`.
    Flushing,
    /// All written.
    Done,
    /// The upstream does not take any more. It may have answered already, so this is not an error yet.
    Refused,
}

impl Upload {
    fn is_done(&self) -> bool {
        self.state == UploadState::Done
    }

    /// The upstream wants the body, or need not be asked.
    fn go_on(&mut self) {
        if self.state == UploadState::Holding {
            self.state = UploadState::Sending;
            self.moved = true;
            self.body.go_on();
        }
    }

    /// Sends what can be sent. `Ready(Ok(()))`: there is nothing more to do now or ever; `Pending`: it will go on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Poll<Result<(), ProxyError>> {
        if matches!(self.state, UploadState::Done | UploadState::Refused) {
            return Poll::Ready(Ok(()));
        }
        loop {
            // Taking the first piece before the head is written lets both go out in one system call.
            if self.out.has_room()
                && !matches!(self.state, UploadState::Flushing | UploadState::Holding)
            {
                self.poll_client(cx)?;
            }
            if self.out.is_empty() {
                if self.state == UploadState::Flushing {
                    self.state = UploadState::Done;
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
            match connection.poll_write(cx, &mut self.out) {
                Poll::Ready(Ok(_)) => {
                    self.sent = true;
                    self.moved = true;
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "writing to upstream failed");
                    self.state = UploadState::Refused;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes the next piece from the client, if one is there.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Result<(), ProxyError> {
        if self.left == 0 {
            self.state = UploadState::Flushing;
            return Ok(());
        }
        match self.body.poll_piece(cx) {
            Poll::Pending => {
                self.state = UploadState::WaitingForClient;
                Ok(())
            }
            Poll::Ready(Some(Ok(piece))) => {
                self.state = UploadState::Sending;
                if !self.chunked {
                    // The codecs end a body at its declared length, so this only guards the connection against a change there.
                    self.left = self
                        .left
                        .checked_sub(piece.len() as u64)
                        .ok_or(ProxyError::ClientAborted)?;
                }
                self.out.push(piece, self.chunked);
                Ok(())
            }
            Poll::Ready(Some(Err(BodyError::Client))) => Err(ProxyError::ClientAborted),
            Poll::Ready(Some(Err(BodyError::Timeout))) => Err(ProxyError::ClientBodyTimeout),
            Poll::Ready(Some(Err(BodyError::TooLarge))) => Err(ProxyError::BodyTooLarge),
            Poll::Ready(None) if self.chunked => {
                self.out.end_chunks(self.body.hand_out_trailers());
                self.state = UploadState::Flushing;
                Ok(())
            }
            Poll::Ready(None) => Err(ProxyError::ClientAborted),
        }
    }
}

/// A response's body, streamed from the connection it came on. Dropped early, it closes the connection.
pub(crate) struct ResponseBody {
    /// Gone once both directions have ended.
    connection: Option<Connection>,
    upload: Option<Box<Upload>>,
    pool: Rc<Pool>,
    home: Home,
    reading: Reading,
    keep_alive: bool,
    idle_seconds: Option<u64>,
    idle: Duration,
    /// Something moved since the deadline was set.
    moved: bool,
    received: u64,
    uploaded: u64,
    /// What went wrong with the upload while only that was looked at.
    failed: Option<ProxyError>,
}

/// Where a connection goes when both directions have ended.
pub(crate) enum Home {
    /// To whoever needs one next.
    Pool,
    /// It was authenticated for one client and stays with it.
    Client(Rc<ClientConnection>, ClusterId),
    /// It is closed.
    Nowhere,
}

enum Reading {
    Length(u64),
    Chunked(Decoder),
    Close,
    /// Not a body at all: see [`ResponseBody::take_tunnel`].
    Tunnel,
    Ended,
}

impl ResponseBody {
    /// What follows the head that came. `home`: where the connection goes afterwards.
    pub(crate) fn new(
        exchange: Exchange,
        head: &ResponseHead,
        home: Home,
        pool: &Rc<Pool>,
    ) -> Self {
        let reading = match head.framing {
            Framing::Length(length) => Reading::Length(length),
            Framing::Chunked => Reading::Chunked(Decoder::new()),
            Framing::Close => Reading::Close,
            Framing::Tunnel => Reading::Tunnel,
        };
        let refused = exchange.upload.state == UploadState::Refused;
        let uploaded = exchange.upload.body.received();
        let upload = if exchange.upload.is_done() || refused {
            pool.give_head_buffer(exchange.upload.out.into_buffer());
            None
        } else {
            let mut upload = Box::new(exchange.upload);
            // From here on either direction may rest while the other moves.
            upload.body.stop_watching_the_clock();
            Some(upload)
        };
        let mut this = Self {
            connection: Some(exchange.connection),
            upload,
            pool: Rc::clone(pool),
            home,
            reading,
            keep_alive: head.keep_alive && !refused && !exchange.upgrade,
            idle_seconds: head.idle_seconds,
            idle: exchange.timeouts.idle,
            moved: true,
            received: 0,
            uploaded,
            failed: None,
        };
        this.end_if_read();
        this
    }

    /// Bytes of body read so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of the request's body that the client had sent.
    pub(crate) fn uploaded(&self) -> u64 {
        self.upload
            .as_ref()
            .map_or(self.uploaded, |upload| upload.body.received())
    }

    /// The connection, once both sides have agreed to speak another protocol on it, and how long it may rest.
    pub(crate) fn take_tunnel(&mut self) -> Option<(Connection, Duration)> {
        match self.reading {
            Reading::Tunnel => Some((self.connection.take()?, self.idle)),
            _ => None,
        }
    }

    /// Gives the connection back as soon as the last byte was read.
    fn end_if_read(&mut self) {
        let read = match &self.reading {
            Reading::Length(left) => *left == 0,
            Reading::Chunked(decoder) => decoder.is_done(),
            Reading::Close | Reading::Tunnel | Reading::Ended => false,
        };
        if read {
            self.end();
        }
    }

    fn end(&mut self) {
        self.reading = Reading::Ended;
        self.uploaded = self.uploaded();
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.keep_alive && self.upload.take().is_none() && connection.buffer.is_empty() {
            match std::mem::replace(&mut self.home, Home::Pool) {
                Home::Pool => self.pool.give(connection, self.idle_seconds),
                Home::Client(client, cluster) => client.pin(Pinned {
                    cluster,
                    connection,
                }),
                Home::Nowhere => {}
            }
        }
    }

    /// Goes on with the request's body, without reading any of the response's.
    pub(crate) fn poll_upload_only(&mut self, cx: &mut Context<'_>) {
        self.failed = self.failed.or(self.poll_upload(cx).err());
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), ProxyError> {
        let (Some(upload), Some(connection)) = (&mut self.upload, &mut self.connection) else {
            return Ok(());
        };
        let polled = upload.poll(cx, connection);
        self.moved |= std::mem::take(&mut upload.moved);
        match polled {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => {
                self.keep_alive &= upload.is_done();
                self.uploaded = upload.body.received();
                self.upload = None;
                Ok(())
            }
        }
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
        if matches!(this.reading, Reading::Ended | Reading::Tunnel) {
            return Poll::Ready(None);
        }
        if let Some(error) = this.failed {
            return Poll::Ready(Some(Err(error)));
        }
        this.poll_upload(cx)?;
        loop {
            let Some(connection) = &mut this.connection else {
                return Poll::Ready(None);
            };
            let piece = match &mut this.reading {
                Reading::Ended | Reading::Tunnel => return Poll::Ready(None),
                _ if connection.buffer.is_empty() => None,
                Reading::Length(left) => {
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(connection.buffer.len());
                    *left -= take as u64;
                    Some(connection.buffer.split_to(take).freeze())
                }
                Reading::Chunked(decoder) => match decoder.decode(&mut connection.buffer) {
                    Ok(Decoded::Data(piece)) => Some(piece),
                    Ok(Decoded::NeedMore) => None,
                    Ok(Decoded::End) => {
                        let trailers = decoder.take_trailers();
                        this.end();
                        return Poll::Ready(
                            trailers.map(|trailers| Ok(Frame::trailers(*trailers))),
                        );
                    }
                    Err(_) => {
                        return Poll::Ready(Some(Err(ProxyError::BadResponse(
                            head::HeadError::Framing,
                        ))));
                    }
                },
                Reading::Close => Some(connection.buffer.split().freeze()),
            };
            if let Some(piece) = piece {
                this.moved = true;
                this.received += piece.len() as u64;
                this.end_if_read();
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let want = match &this.reading {
                Reading::Length(left) => usize::try_from(*left)
                    .unwrap_or(READ_LONG_BODY)
                    .clamp(READ_HEAD, READ_LONG_BODY),
                _ => READ_BODY,
            };
            match connection.poll_fill(cx, want) {
                Poll::Ready(Ok(0)) if matches!(this.reading, Reading::Close) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(ProxyError::UpstreamCut))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "reading from upstream failed");
                    return Poll::Ready(Some(Err(ProxyError::UpstreamCut)));
                }
                Poll::Pending => {
                    if std::mem::take(&mut this.moved) {
                        connection.deadline.set(Instant::now() + this.idle);
                    }
                    if connection.deadline.poll(cx).is_ready() {
                        return Poll::Ready(Some(Err(ProxyError::IdleTimeout)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.reading, Reading::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self.reading {
            Reading::Length(left) => SizeHint::with_exact(left),
            Reading::Ended => SizeHint::with_exact(0),
            Reading::Chunked(_) | Reading::Close | Reading::Tunnel => SizeHint::default(),
        }
    }
}
