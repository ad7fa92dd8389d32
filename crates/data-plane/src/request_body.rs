//! A request's body on its way upstream: counted, bounded, and kept just enough to be sent a second time.

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    /// The declared length, if there is one.
    length: Option<u64>,
    /// Largest allowed length.
    limit: u64,
    received: u64,
    /// The first piece, kept so that an attempt that failed early can be followed by another.
    first: Option<Bytes>,
    pieces: u32,
    /// Hand out `first` again before anything else.
    rewound: bool,
    ended: bool,
}

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client went away or sent something malformed.
    Client,
    /// It is longer than the route allows.
    TooLarge,
}

impl RequestBody {
    /// A body with a declared length, and the most bytes the route allows.
    pub(crate) fn new(incoming: Incoming, limit: Option<u64>) -> Self {
        let ended = incoming.is_end_stream();
        let length = if ended {
            Some(0)
        } else {
            incoming.size_hint().exact()
        };
        let limit = limit.unwrap_or(u64::MAX);
        Self {
            incoming,
            length,
            limit,
            received: 0,
            first: None,
            pieces: 0,
            rewound: false,
            ended,
        }
    }

    /// The declared length; `None` when it is only known at the end.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the declared length is more than the route allows.
    pub(crate) fn is_too_large(&self) -> bool {
        self.length.is_some_and(|length| length > self.limit)
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == Some(0)
    }

    /// Bytes received from the client.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Starts over, if everything that was handed out is still here.
    pub(crate) fn rewind(&mut self) -> bool {
        self.rewound = self.pieces > 0;
        self.pieces <= 1
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        if std::mem::take(&mut self.rewound)
            && let Some(first) = &self.first
        {
            return Poll::Ready(Some(Ok(first.clone())));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.incoming).poll_frame(cx)) else {
                self.ended = true;
                return Poll::Ready(None);
            };
            let Ok(frame) = frame else {
                return Poll::Ready(Some(Err(BodyError::Client)));
            };
            // Trailers of a request have no place in what we forward; they are read and dropped.
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            if piece.is_empty() {
                continue;
            }
            self.received += piece.len() as u64;
            if self.received > self.limit {
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
            self.pieces += 1;
            self.first = (self.pieces == 1).then(|| piece.clone());
            self.ended = self.incoming.is_end_stream();
            return Poll::Ready(Some(Ok(piece)));
        }
    }
}
