//! The bytes of a connection to an endpoint, plain or through TLS.

use crate::endpoint_slots::EndpointSlot;
use crate::socket;
use crate::upstream_tls::UpstreamConnector;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct UpstreamIo {
    stream: Stream,
    /// Its place among the connections that a worker may have; `None` for a probe.
    _slot: Option<EndpointSlot>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<Stream> for UpstreamIo {
    fn from(stream: Stream) -> Self {
        Self {
            stream,
            _slot: None,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Tcp(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl UpstreamIo {
    /// Connects, sends the greeting in the clear, and makes the TLS handshake if there is to be one. The caller limits the time
    /// for all of it.
    pub(crate) async fn connect(
        addr: SocketAddr,
        tls: Option<&UpstreamConnector>,
        greeting: &[u8],
    ) -> Result<Self, ConnectError> {
        let mut stream = TcpStream::connect(addr).await.map_err(ConnectError::Tcp)?;
        // A connection that cannot be tuned works all the same.
        let _ = socket::tune_upstream((&stream).into());
        if !greeting.is_empty() {
            let greeted = stream.write_all(greeting).await;
            greeted.map_err(ConnectError::Tcp)?;
        }
        let Some(tls) = tls else {
            return Ok(Stream::Plain(stream).into());
        };
        let connector = TlsConnector::from(tls.config.clone());
        let stream = connector.connect(tls.name_of(addr), stream).await;
        let stream = stream.map_err(ConnectError::Tls)?;
        if tls.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            let error = io::Error::other("the endpoint does not speak HTTP/2");
            return Err(ConnectError::Tls(error));
        }
        Ok(Stream::Tls(Box::new(stream)).into())
    }

    /// Has this taken for as long as it is open.
    pub(crate) fn holding(mut self, slot: EndpointSlot) -> Self {
        self._slot = Some(slot);
        self
    }

    /// Whether it is still open with nothing unasked-for in it. Costs no system call unless the socket has become readable,
    /// which for a plain connection at rest means that it was closed. Through TLS session tickets may have come.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut probe = [0u8; 1];
        match &mut self.stream {
            Stream::Plain(stream) => {
                stream.poll_read_ready(&mut cx).is_pending()
                    || matches!(stream.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(stream) => {
                let mut buffer = ReadBuf::new(&mut probe);
                Pin::new(stream)
                    .poll_read(&mut cx, &mut buffer)
                    .is_pending()
            }
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => {
                // What was taken from us may still wait to be written, and nobody writes while an answer is waited for.
                // That it cannot be written is no reason not to read: an answer may be there already.
                if stream.get_ref().1.wants_write() {
                    let _ = Pin::new(&mut *stream).poll_flush(cx);
                }
                Pin::new(stream).poll_read(cx, buffer)
            }
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                Pin::new(stream).poll_shutdown(cx)
            }
        }
    }
}
