//! WebSocket: which requests ask for it, and the bytes that go both ways once both sides have agreed.
//!
//! Nothing else is upgraded: every other `Upgrade` is stripped like any field of the connection, so that no upstream can be
//! talked into reading our next request as another protocol. Bytes that a client sends before the upstream has agreed are
//! held back.

use crate::error::ProxyError;
use crate::h1::deadline::Deadline;
use bytes::{Buf, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Version, request};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

/// Bytes asked for in one read.
const READ_SIZE: usize = 16 * 1024;
/// The version of the protocol (RFC 6455 section 4.1).
pub(crate) const WEBSOCKET_VERSION: HeaderValue = HeaderValue::from_static("13");

/// How a client asks for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// `GET` with `Upgrade: websocket` (RFC 6455 section 4.1).
    Http1,
    /// Extended CONNECT on an HTTP/2 stream (RFC 8441 section 4).
    Http2,
}

impl Upgrade {
    /// Whether a request asks for a WebSocket. `has_body`: there is a body, or may be one.
    ///
    /// # Errors
    /// When it asks for one in a way that RFC 6455 section 4.2.1 does not allow.
    pub(crate) fn asked(
        parts: &request::Parts,
        has_body: bool,
    ) -> Result<Option<Self>, ProxyError> {
        let headers = &parts.headers;
        if parts.version == Version::HTTP_2 {
            let websocket = parts
                .extensions
                .get::<hyper::ext::Protocol>()
                .is_some_and(|protocol| protocol.as_str() == "websocket");
            return match (websocket, parts.method == Method::CONNECT) {
                (true, true) => has_version(headers).map(|()| Some(Self::Http2)),
                _ => Ok(None),
            };
        }
        let Some(upgrade) = headers.get(header::UPGRADE) else {
            return Ok(None);
        };
        let listed =
            tokens(headers, header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
        if parts.version != Version::HTTP_11
            || !listed
            || !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
        {
            return Ok(None);
        }
        has_version(headers)?;
        if parts.method != Method::GET || has_body || !has_key(headers) {
            return Err(ProxyError::BadUpgrade);
        }
        Ok(Some(Self::Http1))
    }
}

fn has_version(headers: &HeaderMap) -> Result<(), ProxyError> {
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    match (versions.next(), versions.next()) {
        (Some(version), None) if *version == WEBSOCKET_VERSION => Ok(()),
        _ => Err(ProxyError::UpgradeVersion),
    }
}

/// One key of 16 bytes in base64.
fn has_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return false;
    };
    let key = key.as_bytes();
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(digit)
}

fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Bytes both ways between two ends, until both have closed or nothing moves.
#[derive(Debug)]
pub(crate) struct Relay {
    up: Pipe,
    down: Pipe,
    idle: Duration,
    deadline: Deadline,
}

impl Relay {
    /// `up` and `down` are bytes that were read already, from the client and from the upstream.
    pub(crate) fn new(up: BytesMut, down: BytesMut, idle: Duration) -> Self {
        Self {
            up: Pipe::new(up),
            down: Pipe::new(down),
            idle,
            deadline: Deadline::default(),
        }
    }

    /// Bytes that went up and down.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.up.count, self.down.count)
    }

    /// Moves bytes. Ready when both ends have closed, one is broken, or nothing moved for too long.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        upstream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let before = self.counts();
        let up = self.up.poll(cx, client, upstream)?;
        let down = self.down.poll(cx, upstream, client)?;
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if before != self.counts() || !self.deadline.is_set() {
            self.deadline.set(Instant::now() + self.idle);
        }
        ready!(self.deadline.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// One direction. It holds a buffer only while there is something in it.
#[derive(Debug)]
struct Pipe {
    buffer: BytesMut,
    state: PipeState,
    unflushed: bool,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PipeState {
    Open,
    /// The source has ended; the destination has to be told.
    Ending,
    Ended,
}

impl Pipe {
    fn new(buffer: BytesMut) -> Self {
        Self {
            buffer,
            state: PipeState::Open,
            unflushed: false,
            count: 0,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.buffer.is_empty() {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buffer.advance(count);
                self.count += count as u64;
                self.unflushed = true;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                self.unflushed = false;
            }
            match self.state {
                PipeState::Ended => return Poll::Ready(Ok(())),
                PipeState::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = PipeState::Ended;
                }
                PipeState::Open => {
                    self.buffer.reserve(READ_SIZE);
                    match poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer) {
                        Poll::Ready(Ok(0)) => self.state = PipeState::Ending,
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            self.buffer = BytesMut::new();
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[track_caller]
    fn check(method: &str, fields: &[(&str, &str)], expected: Result<bool, ProxyError>) {
        let mut request = http::Request::builder().method(method).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let asked = Upgrade::asked(&parts, false).map(|upgrade| upgrade.is_some());
        assert_eq!(asked, expected, "{method} {fields:?}");
    }

    #[test]
    fn who_asks_for_a_websocket() {
        let with = |version: &'static str, key: &'static str| {
            [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", version),
                ("sec-websocket-key", key),
            ]
        };
        check("GET", &with("13", KEY), Ok(true));
        check("GET", &with("7", KEY), Err(ProxyError::UpgradeVersion));
        check("GET", &with("13", "short"), Err(ProxyError::BadUpgrade));
        check("POST", &with("13", KEY), Err(ProxyError::BadUpgrade));
        check("GET", &with("13", KEY)[1..], Ok(false));
        check(
            "GET",
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            Ok(false),
        );
    }

    #[tokio::test]
    async fn bytes_go_both_ways_until_both_ends_close() {
        let (mut client, mut client_end) = duplex(32);
        let (mut upstream, mut upstream_end) = duplex(32);
        let mut relay = Relay::new(
            BytesMut::from("early "),
            BytesMut::new(),
            Duration::from_secs(5),
        );
        let relaying = tokio::spawn(async move {
            let ended = poll_fn(|cx| relay.poll(cx, &mut client_end, &mut upstream_end)).await;
            (ended, relay.counts())
        });
        client.write_all(b"and a long question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        upstream.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "early and a long question");
        upstream.write_all(b"a long enough answer").await.unwrap();
        upstream.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "a long enough answer");
        let (ended, counts) = relaying.await.unwrap();
        assert!(ended.is_ok());
        assert_eq!(counts, (25, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_at_rest_ends() {
        let (_client, mut client_end) = duplex(8);
        let (_upstream, mut upstream_end) = duplex(8);
        let mut relay = Relay::new(BytesMut::new(), BytesMut::new(), Duration::from_secs(60));
        let start = Instant::now();
        let ended = poll_fn(|cx| relay.poll(cx, &mut client_end, &mut upstream_end)).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
