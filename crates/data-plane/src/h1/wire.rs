//! The client's side of an HTTP/1.1 connection: the socket, what was read from it, and where in the current message it is.
//!
//! It is shared by the connection's loop ([`super::server`]) and by the body of the request in progress, which are polled on
//! the same task, one after the other: a [`RefCell`](std::cell::RefCell) around it is borrowed for one call at a time.

use super::chunked::{Decoded, Decoder};
use super::head::ResponseHead;
use super::incoming::{self, READ_HEAD};
use super::outgoing::{Outgoing, write_fields, write_status_line};
use super::request::{Framing, HeadReader, Read, RequestError, RequestHead};
use crate::client::ClientConnection;
use crate::client_io::ClientIo;
use crate::turns::{Place, Turns};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Version};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Bytes asked for in one read of a body that is still long.
const READ_BODY: usize = 32 * 1024;
/// What of interim responses may wait for a client that does not read; further ones are dropped.
const MAX_INTERIM: usize = 16 * 1024;
/// What a client may send ahead of its turn before we stop reading; its next requests wait in the kernel then.
const MAX_AHEAD: usize = 16 * 1024;

/// One client connection that speaks HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Wire {
    io: ClientIo,
    turns: Rc<Turns>,
    /// Where its next request waits to begin.
    place: Place,
    /// Read and not yet understood.
    buffer: BytesMut,
    reader: HeadReader,
    body: Body,
    /// The client waits for `100 Continue` before it sends the body.
    waits_for_continue: bool,
    /// The client sends nothing more; it may still read.
    read_closed: bool,
    /// The request in progress came by HTTP/1.0.
    http10: bool,
    /// Interim responses, to be written before the final one.
    interim: Outgoing,
}

/// Where in the current request's body the next byte stands.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Decoder),
    Ended,
    /// Malformed, or cut off.
    Broken,
}

/// What comes next on the connection.
pub(crate) enum Next {
    /// A request.
    Request(Box<RequestHead>),
    /// HTTP/2 by prior knowledge.
    Http2,
    /// The client is done, or was asked to go while it was at rest.
    End,
}

/// Why there is no next request.
#[derive(Debug)]
pub(crate) enum NextError {
    /// Refused, and worth an answer.
    Refused(RequestError),
    /// Part of a head came, and then no more in time.
    Timeout,
    /// The connection is gone.
    Gone(io::Error),
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum BodyPiece {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

/// The body is malformed or will never be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyBroken;

impl Wire {
    pub(crate) fn new(io: ClientIo, turns: Rc<Turns>) -> Self {
        Self {
            io,
            turns,
            place: Place::default(),
            buffer: BytesMut::new(),
            reader: HeadReader::default(),
            body: Body::Ended,
            waits_for_continue: false,
            read_closed: false,
            http10: false,
            interim: Outgoing::default(),
        }
    }

    /// The next request's head. `first`: nothing was asked on this connection before.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        client: &ClientConnection,
        first: bool,
    ) -> Poll<Result<Next, NextError>> {
        loop {
            if !self.buffer.is_empty() {
                client.begin_reading();
                match self.reader.read(&mut self.buffer, first) {
                    Ok(Read::Head(head)) => return Poll::Ready(Ok(Next::Request(head))),
                    Ok(Read::Http2) => return Poll::Ready(Ok(Next::Http2)),
                    Ok(Read::NeedMore) => {}
                    Err(error) => return Poll::Ready(Err(NextError::Refused(error))),
                }
            }
            let rests = self.buffer.is_empty() && !self.place.is_waiting();
            if self.read_closed || client.is_draining(cx) && rests {
                return Poll::Ready(Ok(Next::End));
            }
            match ready!(self.poll_arrival(cx)) {
                Ok(0) => return Poll::Ready(Ok(Next::End)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut && client.is_reading() => {
                    return Poll::Ready(Err(NextError::Timeout));
                }
                Err(error) => return Poll::Ready(Err(NextError::Gone(error))),
            }
        }
    }

    /// Reads some bytes of a head; the first when it is this request's turn.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            if !self.place.is_waiting() {
                ready!(self.io.poll_readable(cx))?;
            }
            ready!(self.turns.poll_begin(&mut self.place, cx));
        }
        self.poll_fill(cx, READ_HEAD)
    }

    /// Begins the body of a request whose head was taken.
    pub(crate) fn begin_body(&mut self, head: &RequestHead) {
        self.body = match head.framing {
            Framing::Length(0) => Body::Ended,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Decoder::new()),
        };
        self.waits_for_continue = head.expects_continue;
        self.http10 = head.parts.version == Version::HTTP_10;
    }

    /// Whether the body was read to its end.
    pub(crate) fn body_has_ended(&self) -> bool {
        matches!(self.body, Body::Ended)
    }

    /// Whether the client holds its body back until it is told to go on.
    pub(crate) fn waits_for_continue(&self) -> bool {
        self.waits_for_continue
    }

    /// Tells the client to send its body.
    pub(crate) fn go_on(&mut self) {
        if std::mem::take(&mut self.waits_for_continue) {
            self.interim
                .prefix()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Sends an interim response with the next write, to a client that knows of them and takes them. A client may
    /// ignore what it does not expect of them (RFC 9110 section 15.2), so one that finds too many waiting is dropped.
    pub(crate) fn send_interim(&mut self, head: &ResponseHead) {
        let out = self.interim.prefix();
        if !self.http10 && out.len() < MAX_INTERIM {
            write_status_line(out, head.status);
            write_fields(out, &head.headers);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyPiece, BodyBroken>>> {
        loop {
            match &mut self.body {
                Body::Ended => return Poll::Ready(None),
                Body::Broken => return Poll::Ready(Some(Err(BodyBroken))),
                Body::Length(left) => {
                    if !self.buffer.is_empty() {
                        let take = usize::try_from(*left)
                            .unwrap_or(usize::MAX)
                            .min(self.buffer.len());
                        *left -= take as u64;
                        if *left == 0 {
                            self.body = Body::Ended;
                        }
                        let piece = self.buffer.split_to(take).freeze();
                        return Poll::Ready(Some(Ok(BodyPiece::Data(piece))));
                    }
                }
                Body::Chunked(decoder) => match decoder.decode(&mut self.buffer) {
                    Ok(Decoded::Data(piece)) => {
                        return Poll::Ready(Some(Ok(BodyPiece::Data(piece))));
                    }
                    Ok(Decoded::End) => {
                        let trailers = decoder.take_trailers();
                        self.body = Body::Ended;
                        return Poll::Ready(
                            trailers.map(|trailers| Ok(BodyPiece::Trailers(trailers))),
                        );
                    }
                    Ok(Decoded::NeedMore) => {}
                    Err(_) => {
                        self.body = Body::Broken;
                        continue;
                    }
                },
            }
            let want = match &self.body {
                Body::Length(left) => usize::try_from(*left)
                    .unwrap_or(READ_BODY)
                    .clamp(READ_HEAD, READ_BODY),
                _ => READ_HEAD * 2,
            };
            if self.read_closed || !matches!(ready!(self.poll_fill(cx, want)), Ok(1..)) {
                self.body = Body::Broken;
            }
        }
    }

    /// Takes what is here of a body that nobody wants, so that the connection may go on.
    pub(crate) fn discard_buffered_body(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while !self.buffer.is_empty() && !matches!(self.body, Body::Ended | Body::Broken) {
            if self.poll_body(&mut cx).is_pending() {
                break;
            }
        }
    }

    /// Writes what interim responses there are, and is ready when the client is gone: it has reset the connection, or has
    /// ended its side over TLS or while its request waits in a queue.
    ///
    /// Any other client that only closes its sending side still gets its answer.
    pub(crate) fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        client: &ClientConnection,
    ) -> Poll<io::Error> {
        if let Poll::Ready(Err(error)) = self.poll_interim(cx) {
            return Poll::Ready(error);
        }
        while self.body_has_ended() && !self.read_closed && self.buffer.len() < MAX_AHEAD {
            match self.poll_fill(cx, READ_HEAD) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
            }
        }
        if self.read_closed {
            client.has_ended.set(true);
            // TLS says in so many words that nothing more comes; and who is in a queue may as well come again.
            if client.scheme == "https" || client.is_queued.get() {
                return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Poll::Pending
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            ready!(self.interim.poll_write(cx, &mut self.io))?;
            if self.interim.is_empty() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all of `out`.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        while !out.is_empty() {
            ready!(out.poll_write(cx, &mut self.io))?;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Makes it ready to rest: no buffer unless the client has sent more already.
    pub(crate) fn rest(&mut self) {
        self.interim = Outgoing::default();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The socket, and what was read from it and is not of HTTP/1.1.
    pub(crate) fn into_parts(self) -> (ClientIo, BytesMut) {
        (self.io, self.buffer)
    }

    /// Says whether a close means that something is missing: the client's side is reset then.
    pub(crate) fn reset_when_closed(&self, reset: bool) {
        self.io.reset_when_closed(reset);
    }

    /// Sends our end of the stream.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Reads and forgets; ready when the client has closed too.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.buffer.clear();
            match ready!(self.poll_fill(cx, READ_HEAD)) {
                Ok(1..) => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Reads some bytes behind what the buffer holds. `Ok(0)`: the client has closed its sending side.
    fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<usize>> {
        let read = incoming::poll_fill(&mut self.io, cx, &mut self.buffer, want);
        match &read {
            Poll::Ready(Ok(count)) => self.read_closed |= *count == 0,
            // It may be a long time until something comes.
            Poll::Pending if self.buffer.is_empty() => self.buffer = BytesMut::new(),
            _ => {}
        }
        read
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::client_io::ClientStream;
    use crate::h1::head;
    use http::Method;
    use routing_table::ListenerId;
    use std::net::SocketAddr;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn interim_responses_that_nobody_takes_do_not_pile_up() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let stream = ClientStream::Plain(stream.await.unwrap());
        let client = ClientConnection::new(ListenerId::new("http"), any, None, 80, false, &[]);
        let io = ClientIo::new(stream, client, crate::ClientTimeouts::default());
        let mut wire = Wire::new(io, Rc::default());
        let hint = format!(
            "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
            "x".repeat(4000)
        );
        let read = || head::parse(&mut BytesMut::from(&*hint), &Method::GET, false);
        let head = read().unwrap().unwrap();
        for _ in 0..100 {
            wire.send_interim(&head);
        }
        assert!(wire.interim.prefix().len() < MAX_INTERIM + hint.len());
        // The word that the client waits for comes all the same.
        wire.waits_for_continue = true;
        wire.go_on();
        let waiting = wire.interim.prefix();
        assert!(waiting.ends_with(b"HTTP/1.1 100 Continue\r\n\r\n"));
    }
}
