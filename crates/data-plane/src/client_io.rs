//! A client's socket, plain or TLS, with its deadlines.
//!
//! Deadlines wrap the socket from `accept` on, so there is no code path without one: a client that has sent nothing, half a
//! head, or rests between requests is cut by the socket itself. While a request is in progress its own deadlines rule (see
//! `request_body` and `h1/exchange`), and only a stalled write is watched here.

use crate::client::{ClientConnection, ClientTimeouts};
use crate::h1::deadline::Deadline;
use crate::h2_guard::reader::Reader;
use bytes::BytesMut;
use rustls::ProtocolVersion;
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

/// What comes in several pieces and is no longer than this is written in one.
const SMALL_WRITE: usize = 1024;

/// A client's connection below HTTP.
#[derive(Debug)]
pub(crate) enum ClientStream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client's socket with its deadlines.
#[derive(Debug)]
pub(crate) struct ClientIo {
    stream: ClientStream,
    client: Rc<ClientConnection>,
    timeouts: ClientTimeouts,
    /// For HTTP/2, whose frames come between requests too, so that a byte does not begin a head.
    http2: Option<Box<Reader>>,
    read: Deadline,
    write: Deadline,
}

impl ClientIo {
    /// For HTTP/1.1.
    pub(crate) fn new(
        stream: ClientStream,
        client: Rc<ClientConnection>,
        timeouts: ClientTimeouts,
    ) -> Self {
        Self {
            stream,
            client,
            timeouts,
            http2: None,
            read: Deadline::default(),
            write: Deadline::default(),
        }
    }

    /// The same socket for HTTP/2, of which these bytes were read already.
    pub(crate) fn into_http2(self, begun: BytesMut) -> Self {
        Self {
            http2: Some(Box::new(Reader::new(begun))),
            ..self
        }
    }

    /// Whether a read may give something, without a buffer to read into: a client at rest need not have one. Over TLS what has
    /// come may be too little to give anything. For HTTP/1.1.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let holds_some = match &self.stream {
            ClientStream::Plain(_) => false,
            ClientStream::Tls(stream) => !stream.get_ref().1.wants_read(),
        };
        if holds_some {
            return Poll::Ready(Ok(()));
        }
        match self.stream.socket().poll_read_ready(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.watch_read(cx),
        }
    }

    /// Says whether a close means that something is missing: then it is a reset, and what is on its way is dropped.
    pub(crate) fn reset_when_closed(&self, reset: bool) {
        let linger = reset.then_some(Duration::ZERO);
        // At worst the client takes what there is for all, as any client of its kind must.
        let _ = SockRef::from(self.stream.socket()).set_linger(linger);
    }

    /// Nothing came: ready when the time for it is up.
    fn watch_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(until) = self.client.read_until(&self.timeouts) else {
            return Poll::Pending;
        };
        self.read.set(until);
        match self.read.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = &written {
            if result.is_err() {
                self.client.is_over.set(true);
            }
            self.write.clear();
            return written;
        }
        if !self.write.is_set() {
            self.write.set(Instant::now() + self.timeouts.write_stall);
        }
        match self.write.poll(cx) {
            Poll::Ready(()) => {
                // What the kernel holds for a client that does not read it would stay for minutes after a mere close.
                let _ = self.stream.socket().set_zero_linger();
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(http2) = &mut this.http2 {
                if this.client.streams.are_abused() {
                    http2.calm();
                }
                if http2.give(buffer) {
                    return Poll::Ready(Ok(()));
                }
                if http2.has_ended() {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
            }
            let before = buffer.filled().len();
            let Poll::Ready(result) = this.stream.poll_read(cx, buffer) else {
                break;
            };
            if result.is_err() {
                this.client.is_over.set(true);
            }
            result?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let passed = match &mut this.http2 {
                Some(http2) => http2.take(buffer, before),
                None => {
                    this.client.begin_reading();
                    true
                }
            };
            if passed {
                return Poll::Ready(Ok(()));
            }
            // Less than a frame came.
        }
        this.watch_read(cx)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.poll_write(cx, bytes);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let written = if total <= SMALL_WRITE {
            // Copying a small answer costs less than the kernel takes to look at a list of pieces.
            let mut whole = [0; SMALL_WRITE];
            let mut end = 0;
            for piece in pieces {
                whole[end..end + piece.len()].copy_from_slice(piece);
                end += piece.len();
            }
            self.stream.poll_write(cx, &whole[..end])
        } else {
            self.stream.poll_write_vectored(cx, pieces)
        };
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.poll_flush(cx);
        self.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.is_over.set(true);
        let shut = self.stream.poll_shutdown(cx);
        self.watch_write(cx, shut)
    }
}

impl ClientStream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => poll_read_tls(stream, cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Reads, and ends the connection of a client that asks for another handshake inside its session.
///
/// rustls refuses that with an alert that it only puts aside to be sent, so the client would wait for an answer that never
/// comes. In TLS 1.2 a read leaves nothing else to be written, by which it is known. While something waits to be written
/// anyway it is not; then rustls ends the connection when the client asks again.
fn poll_read_tls(
    stream: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let before = buffer.filled().len();
    let had_output = stream.get_ref().1.wants_write();
    let read = Pin::new(&mut *stream).poll_read(cx, buffer);
    let session = stream.get_ref().1;
    let renegotiates = !had_output
        && session.wants_write()
        && session.protocol_version() == Some(ProtocolVersion::TLSv1_2);
    if !renegotiates || matches!(read, Poll::Ready(Err(_))) {
        return read;
    }
    // What came behind the request is not looked at, and whether the alert can be sent changes nothing.
    buffer.set_filled(before);
    let _ = Pin::new(stream).poll_flush(cx);
    Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
}
