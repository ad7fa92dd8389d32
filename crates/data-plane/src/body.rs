//! The body of an answer to a client, wherever it comes from, with the record of its request.

use crate::error::ProxyError;
use crate::h1::{self, connection::Connection};
use crate::h2;
use crate::record::Record;
use crate::upgrade::Relay;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// An answer's body. Dropping it ends the record of the request.
pub(crate) struct AnswerBody {
    source: Source,
    /// Gone where the record lives on elsewhere.
    record: Option<Box<Record>>,
}

/// Where the bytes come from.
pub(crate) enum Source {
    /// Written by us.
    Own(Bytes),
    /// Streamed from an endpoint that speaks HTTP/1.1. In a box because an answer is handed on a dozen times, which costs more
    /// than the box.
    Http1(Box<h1::exchange::ResponseBody>),
    /// Streamed from an endpoint that speaks HTTP/2.
    Http2(h2::ResponseBody),
}

impl AnswerBody {
    pub(crate) fn new(source: Source, mut record: Box<Record>) -> Self {
        record.outcome.complete = match &source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        };
        record.outcome.request_bytes = match &source {
            Source::Own(_) => record.outcome.request_bytes,
            Source::Http1(body) => body.uploaded(),
            Source::Http2(body) => body.uploaded(),
        };
        Self {
            source,
            record: Some(record),
        }
    }

    /// Nothing, of a request whose record lives on in a tunnel.
    pub(crate) fn empty() -> Self {
        Self {
            source: Source::Own(Bytes::new()),
            record: None,
        }
    }

    /// What is left of the request when another protocol takes over its connections.
    pub(crate) fn into_tunnel(self) -> Option<Tunnel> {
        let Source::Http1(mut body) = self.source else {
            return None;
        };
        let (upstream, idle) = body.take_tunnel()?;
        Some(Tunnel {
            upstream,
            idle,
            record: self.record?,
        })
    }

    /// Goes on with the request's body while the client takes nothing of the answer.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Source::Http1(body) = &mut self.source {
            body.poll_upload_only(cx);
        }
    }
}

impl AnswerBody {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(record) = &mut self.record else {
            return Poll::Ready(None);
        };
        let (outcome, now) = (&mut record.outcome, record.request.worker.now());
        match &mut self.source {
            Source::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Own(bytes) => {
                outcome.complete = true;
                outcome.response_bytes = bytes.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Source::Http1(body) => {
                let mut frame = ready!(Pin::new(&mut **body).poll_frame(cx));
                outcome.streamed(
                    &mut frame,
                    body.uploaded(),
                    body.received(),
                    body.is_end_stream(),
                    now,
                );
                Poll::Ready(frame)
            }
            Source::Http2(body) => {
                let mut frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                outcome.streamed(
                    &mut frame,
                    body.uploaded(),
                    body.received(),
                    body.is_end_stream(),
                    now,
                );
                Poll::Ready(frame)
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        let polled = this.poll_piece(cx);
        if let Some(record) = &this.record {
            record.request.client.streams.asked(&polled);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
        }
    }
}

/// A request that became a WebSocket. Dropping it ends the record of the request.
pub(crate) struct Tunnel {
    upstream: Connection,
    idle: Duration,
    record: Box<Record>,
}

impl Tunnel {
    /// Relays between the client and the upstream to the end. `begun` was read from the client already.
    pub(crate) async fn run(
        self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        begun: BytesMut,
    ) {
        let Self {
            upstream,
            idle,
            mut record,
        } = self;
        let (mut upstream, answered) = upstream.into_parts();
        let mut relay = Relay::new(begun, answered, idle);
        let ended = poll_fn(|cx| relay.poll(cx, &mut client, &mut upstream)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "tunnel ended");
        }
        let (up, down) = relay.counts();
        let outcome = &mut record.outcome;
        (outcome.request_bytes, outcome.response_bytes) = (up, down);
        outcome.complete = true;
    }
}
