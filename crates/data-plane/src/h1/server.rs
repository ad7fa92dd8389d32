//! The server's side of HTTP/1.1: one loop per connection that reads a head, has it answered, and writes the answer.
//!
//! Why not a general server: it would hide the bytes a head was made of, ask the client for a body before the upstream wants
//! it, and keep its buffers while the client rests (`docs/decisions/005-own-downstream-codec.md`).

use super::outgoing::{Outgoing, write_fields, write_status_line};
use super::request::{RequestError, RequestHead};
use super::wire::{Next, NextError, Wire};
use crate::answer_fields::has_no_content;
use crate::body::{AnswerBody, Tunnel};
use crate::client::ClientConnection;
use crate::client_io::ClientIo;
use crate::error::ProxyError;
use crate::proxy::{self, proxy};
use crate::request_body::ClientBody;
use crate::request_head::accepts_trailers;
use crate::worker::Worker;
use bytes::BytesMut;
use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode, Version};
use http_body::Body;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// After an answer that the client may not be ready to hear: how long it may go on sending before the connection is closed
/// hard, which would take the answer from it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of the connection after a request.
enum After {
    /// It is ready for another.
    KeepAlive,
    /// It ends, and nothing more was sent by the client.
    Close,
    /// It ends while the client may still be sending.
    Linger,
    /// It speaks another protocol now.
    Tunnel(Box<Tunnel>),
    /// It is broken.
    Gone,
}

/// Serves a connection to its end. Gives the socket back when the client speaks HTTP/2.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    io: ClientIo,
    may_be_http2: bool,
) -> Option<(ClientIo, BytesMut)> {
    let wire = Rc::new(RefCell::new(Wire::new(io, Rc::clone(&worker.turns))));
    let mut first = may_be_http2;
    loop {
        let next = poll_fn(|cx| wire.borrow_mut().poll_next(cx, client, first)).await;
        first = false;
        let after = match next {
            Ok(Next::Request(head)) => {
                // A box for each request, so that a connection at rest does not hold the space of one.
                match Box::pin(one_request(worker, client, &wire, head)).await {
                    After::Tunnel(tunnel) => {
                        let (client, begun) = Rc::into_inner(wire)?.into_inner().into_parts();
                        Box::pin(tunnel.run(client, begun)).await;
                        return None;
                    }
                    after => after,
                }
            }
            Ok(Next::End) => return None,
            Ok(Next::Http2) => {
                return Rc::into_inner(wire).map(|wire| wire.into_inner().into_parts());
            }
            Err(error) => refuse(worker, client, &wire, error).await,
        };
        match after {
            After::KeepAlive => wire.borrow_mut().rest(),
            After::Close => {
                let _ = poll_fn(|cx| wire.borrow_mut().poll_shutdown(cx)).await;
                return None;
            }
            After::Linger => {
                linger(&wire).await;
                return None;
            }
            After::Tunnel(_) | After::Gone => return None,
        }
    }
}

async fn linger(wire: &Rc<RefCell<Wire>>) {
    let lingering = async {
        let _ = poll_fn(|cx| wire.borrow_mut().poll_shutdown(cx)).await;
        poll_fn(|cx| wire.borrow_mut().poll_drain(cx)).await;
    };
    let _ = tokio::time::timeout(LINGER, lingering).await;
}

/// Answers what is no request.
async fn refuse(
    worker: &Rc<Worker>,
    client: &ClientConnection,
    wire: &Rc<RefCell<Wire>>,
    error: NextError,
) -> After {
    let error = match error {
        NextError::Refused(error) => ProxyError::Unreadable(error),
        NextError::Timeout => ProxyError::HeadTimeout,
        NextError::Gone(error) => {
            tracing::debug!(client = client.addr_text, %error, "connection ended");
            return After::Gone;
        }
    };
    worker.stats.unreadable.add(1);
    tracing::debug!(client = client.addr_text, %error, "request refused");
    if error == ProxyError::Unreadable(RequestError::NotHttp) {
        return After::Linger;
    }
    let mut head = Vec::with_capacity(256);
    let (status, text) = (error.status(), proxy::words(error.status()));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    headers.insert(header::CONTENT_TYPE, proxy::PLAIN_TEXT);
    write_head(&mut head, worker, status, &headers, Reuse::Close);
    head.extend_from_slice(text.as_bytes());
    let mut out = Outgoing::new(head);
    match poll_fn(|cx| wire.borrow_mut().poll_send(cx, &mut out)).await {
        Ok(()) => After::Linger,
        Err(_) => After::Gone,
    }
}

async fn one_request(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    wire: &Rc<RefCell<Wire>>,
    head: Box<RequestHead>,
) -> After {
    wire.borrow_mut().begin_body(&head);
    let asked = Asked::of(&head);
    let length = match head.framing {
        super::request::Framing::Length(length) => Some(length),
        super::request::Framing::Chunked => None,
    };
    let body = ClientBody::Http1 {
        wire: Rc::clone(wire),
        length,
    };
    let answer = {
        let mut answering = pin!(proxy(
            Rc::clone(worker),
            Rc::clone(client),
            head.parts,
            body
        ));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            wire.borrow_mut().poll_gone(cx, client).map(Err)
        })
        .await
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(client = client.addr_text, %error, "client left");
            return After::Gone;
        }
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Box::pin(switch(worker, wire, answer)).await;
    }
    let mut sending = Sending::new(worker, client, wire, answer, &asked);
    let sent = poll_fn(|cx| sending.poll(cx)).await;
    sending.end(worker, sent)
}

/// What of the request decides how the answer is framed.
struct Asked {
    http10: bool,
    head: bool,
    keep_alive: bool,
    trailers: bool,
}

impl Asked {
    fn of(head: &RequestHead) -> Self {
        Self {
            http10: head.parts.version == Version::HTTP_10,
            head: head.parts.method == Method::HEAD,
            keep_alive: head.keep_alive,
            trailers: accepts_trailers(&head.parts.headers),
        }
    }
}

/// What the head says of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// The default of HTTP/1.1.
    KeepAlive,
    /// Said aloud, for HTTP/1.0.
    KeepAliveAloud,
    Close,
    /// The answer to a request for a WebSocket.
    Upgrade,
}

/// Tells the client that its WebSocket is open.
async fn switch(worker: &Worker, wire: &Rc<RefCell<Wire>>, answer: Response<AnswerBody>) -> After {
    let (parts, body) = answer.into_parts();
    let mut head = worker.pool.head_buffer();
    write_head(
        &mut head,
        worker,
        StatusCode::SWITCHING_PROTOCOLS,
        &parts.headers,
        Reuse::Upgrade,
    );
    let mut out = Outgoing::new(head);
    let sent = poll_fn(|cx| wire.borrow_mut().poll_send(cx, &mut out)).await;
    match (sent, body.into_tunnel()) {
        (Ok(()), Some(tunnel)) => After::Tunnel(Box::new(tunnel)),
        _ => After::Gone,
    }
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Writes status line and fields. Framing is the caller's, but for a `Content-Length` among the fields.
fn write_head(
    out: &mut Vec<u8>,
    worker: &Worker,
    status: StatusCode,
    headers: &HeaderMap,
    reuse: Reuse,
) {
    write_status_line(out, status);
    write_fields(out, headers);
    out.extend_from_slice(b"server: ");
    out.extend_from_slice(proxy::SERVER.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !headers.contains_key(header::DATE) {
        // RFC 9110 section 6.6.1: a message that we pass on has one.
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(&worker.date());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match reuse {
        Reuse::KeepAlive => b"",
        Reuse::KeepAliveAloud => b"connection: keep-alive\r\n",
        Reuse::Close => b"connection: close\r\n",
        Reuse::Upgrade => b"connection: upgrade\r\nupgrade: websocket\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// An answer on its way to the client.
struct Sending<'a> {
    client: &'a ClientConnection,
    wire: &'a Rc<RefCell<Wire>>,
    out: Outgoing,
    body: AnswerBody,
    chunked: bool,
    /// The client takes trailer fields.
    trailers: bool,
    /// The body is not sent: an answer to HEAD, or a status without one.
    silent: bool,
    ended: bool,
    /// The end of the body is that of the connection.
    until_close: bool,
    /// What the client has sent ends with its request.
    whole: bool,
    /// The connection is ready for another request afterwards.
    keep_alive: bool,
}

impl<'a> Sending<'a> {
    fn new(
        worker: &Worker,
        client: &'a ClientConnection,
        wire: &'a Rc<RefCell<Wire>>,
        answer: Response<AnswerBody>,
        asked: &Asked,
    ) -> Self {
        let (parts, body) = answer.into_parts();
        let (status, mut headers) = (parts.status, parts.headers);
        let last = headers.remove(header::CONNECTION).is_some();
        let bodiless = asked.head || has_no_content(status);
        let length = body.size_hint().exact();
        let chunked = !bodiless && length.is_none() && !asked.http10;
        let until_close = !bodiless && length.is_none() && asked.http10;
        let whole = {
            let mut wire = wire.borrow_mut();
            if !wire.waits_for_continue() {
                wire.discard_buffered_body();
            }
            wire.body_has_ended()
        };
        let keep_alive = asked.keep_alive && whole && !until_close && !last;
        if until_close {
            // Else an answer that is cut, for whatever reason, would look as if it were whole (RFC 9112 section 8).
            wire.borrow().reset_when_closed(true);
        }
        let reuse = match (keep_alive, asked.http10) {
            (true, false) => Reuse::KeepAlive,
            (true, true) => Reuse::KeepAliveAloud,
            (false, _) => Reuse::Close,
        };
        let mut out = worker.pool.head_buffer();
        write_head(&mut out, worker, status, &headers, reuse);
        let end = out.len() - 2;
        match length {
            _ if chunked => {
                out.truncate(end);
                out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            }
            Some(length) if !bodiless && !headers.contains_key(header::CONTENT_LENGTH) => {
                out.truncate(end);
                write_length(&mut out, length);
            }
            _ => {}
        }
        Self {
            client,
            wire,
            out: Outgoing::new(out),
            body,
            chunked,
            trailers: asked.trailers,
            silent: bodiless,
            ended: false,
            until_close,
            whole,
            keep_alive,
        }
    }

    /// What becomes of the connection.
    fn end(self, worker: &Worker, sent: Result<(), ()>) -> After {
        // The record of the request ends with its body; the next request must not find this one still in progress.
        drop(self.body);
        worker.pool.give_head_buffer(self.out.into_buffer());
        if self.until_close && sent.is_ok() {
            self.wire.borrow().reset_when_closed(false);
        }
        match sent {
            Err(()) => After::Gone,
            Ok(()) if self.keep_alive => After::KeepAlive,
            Ok(()) if self.whole => After::Close,
            Ok(()) => After::Linger,
        }
    }

    /// Moves bytes for as long as there are some. An error is not told to the client in any other way than by cutting the
    /// connection: the head has been sent.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        loop {
            let mut waiting = false;
            // The first piece goes out together with the head.
            if self.out.has_room() && !self.ended {
                waiting = self.poll_body(cx)?.is_pending();
            }
            if !self.out.is_empty() {
                let sent = self.wire.borrow_mut().poll_send(cx, &mut self.out);
                match sent {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                    Poll::Pending => {
                        // A client may finish its upload before it reads what we have for it.
                        self.body.poll_upload(cx);
                        return Poll::Pending;
                    }
                }
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if waiting {
                let gone = self.wire.borrow_mut().poll_gone(cx, self.client);
                return gone.map(|_| Err(()));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => {
                self.ended = true;
                if self.chunked {
                    self.out.end_chunks(None);
                }
            }
            Some(Err(_)) => return Poll::Ready(Err(())),
            Some(Ok(_)) if self.silent => {}
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    self.out.push(piece, self.chunked);
                    // Where nothing has to follow the last piece, nothing has to be asked for.
                    self.ended = !self.chunked && self.body.is_end_stream();
                }
                Err(frame) => {
                    self.ended = true;
                    if self.chunked {
                        let trailers = frame.into_trailers().ok().filter(|_| self.trailers);
                        self.out.end_chunks(trailers.as_ref());
                    }
                }
            },
        }
        Poll::Ready(Ok(()))
    }
}
