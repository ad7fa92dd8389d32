//! A request's body on its way upstream, whichever protocol it came by: counted, bounded in size and time, and kept just
//! enough to be sent a second time.

use crate::answer_fields::{may_be_trailer, remove_where};
use crate::forwarded_headers::may_trail;
use crate::h1::deadline::Deadline;
use crate::h1::head::ResponseHead;
use crate::h1::wire::{BodyPiece, Wire};
use crate::judge::Asked;
use crate::outstanding::Outstanding;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Body;
use hyper::body::Incoming;
use routing_table::filter::is_same_field;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// How long a client may take over its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Longest wait for a piece.
    pub(crate) idle: Duration,
    /// Bytes a second on average, after twice that time.
    pub(crate) min_rate: u64,
}

/// Where a request's body comes from.
#[derive(Debug)]
pub(crate) enum ClientBody {
    /// An HTTP/1.1 connection; `length` is `None` for a chunked body.
    Http1 {
        wire: Rc<RefCell<Wire>>,
        length: Option<u64>,
    },
    /// An HTTP/2 stream.
    Http2(Incoming),
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: ClientBody,
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
    trailers: Option<Box<HeaderMap>>,
    /// They were handed out, and are kept for another attempt.
    trailers_out: bool,
    /// What the client may not send in its trailers, besides what nobody may.
    withheld: Box<[HeaderName]>,
    /// `None` where a client may rest in the middle of a body.
    pace: Option<Pace>,
    /// Nothing was there when it was asked for last.
    waiting: bool,
    failed: Option<BodyError>,
    deadline: Deadline,
    /// When the client was first waited for.
    slow_since: Option<Instant>,
    /// Told when the client has sent all of it, once.
    asked: Option<Rc<Asked>>,
    /// Told of every byte, where its bytes are what the request costs.
    outstanding: Option<Rc<Outstanding>>,
}

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client went away or sent something malformed.
    Client,
    /// The client is too slow.
    Timeout,
    /// It is longer than the route allows.
    TooLarge,
}

impl ClientBody {
    /// Whether there certainly is no body.
    pub(crate) fn is_empty(&self) -> bool {
        self.length() == Some(0)
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Http1 { length, .. } => *length,
            Self::Http2(incoming) if incoming.is_end_stream() => Some(0),
            Self::Http2(incoming) => incoming.size_hint().exact(),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BodyPiece, BodyError>>> {
        match self {
            Self::Http1 { wire, .. } => {
                let piece = ready!(wire.borrow_mut().poll_body(cx));
                Poll::Ready(piece.map(|piece| piece.map_err(|_| BodyError::Client)))
            }
            Self::Http2(incoming) => {
                let Some(frame) = ready!(Pin::new(incoming).poll_frame(cx)) else {
                    return Poll::Ready(None);
                };
                let frame = frame.map_err(|_| BodyError::Client)?;
                Poll::Ready(Some(match frame.into_data() {
                    Ok(data) => Ok(BodyPiece::Data(data)),
                    Err(frame) => match frame.into_trailers() {
                        // What an HTTP/1.1 client may not send behind a body either.
                        Ok(trailers) if !trailers.keys().all(may_be_trailer) => {
                            Err(BodyError::Client)
                        }
                        Ok(trailers) => Ok(BodyPiece::Trailers(Box::new(trailers))),
                        Err(_) => Ok(BodyPiece::Data(Bytes::new())),
                    },
                }))
            }
        }
    }
}

impl RequestBody {
    /// A body with a declared length, the most bytes the route allows, and how long the client may take over it.
    pub(crate) fn new(source: ClientBody, limit: Option<u64>, pace: Option<Pace>) -> Self {
        let length = source.length();
        Self {
            source,
            length,
            limit: limit.unwrap_or(u64::MAX),
            received: 0,
            first: None,
            pieces: 0,
            rewound: false,
            ended: length == Some(0),
            trailers: None,
            trailers_out: false,
            withheld: Box::default(),
            pace,
            waiting: false,
            failed: None,
            deadline: Deadline::default(),
            slow_since: None,
            asked: None,
            outstanding: None,
        }
    }

    /// Drops these from its trailers, in every spelling.
    pub(crate) fn withhold(&mut self, names: Vec<HeaderName>) {
        self.withheld = names.into();
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

    /// Whether nothing is left to be sent, trailers included.
    pub(crate) fn has_nothing_left(&self) -> bool {
        self.ended && !self.rewound && (self.trailers_out || self.trailers.is_none())
    }

    /// Whether the client was waited for when a piece was asked for last.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.waiting
    }

    /// Why it cannot be read on.
    pub(crate) fn failed(&self) -> Option<BodyError> {
        self.failed
    }

    /// The trailer fields, once the body has ended: once for each attempt.
    pub(crate) fn hand_out_trailers(&mut self) -> Option<&HeaderMap> {
        let were_out = std::mem::replace(&mut self.trailers_out, true);
        self.trailers.as_deref().filter(|_| !were_out)
    }

    /// Whether the client holds its body back until it gets `100 Continue`.
    pub(crate) fn waits_for_continue(&self) -> bool {
        match &self.source {
            ClientBody::Http1 { wire, .. } => !self.ended && wire.borrow().waits_for_continue(),
            ClientBody::Http2(_) => false,
        }
    }

    /// Tells the client to send its body.
    pub(crate) fn go_on(&self) {
        if let ClientBody::Http1 { wire, .. } = &self.source {
            wire.borrow_mut().go_on();
        }
    }

    /// Passes an interim response on, where the client's protocol lets us.
    pub(crate) fn send_interim(&self, head: &ResponseHead) {
        if let ClientBody::Http1 { wire, .. } = &self.source {
            wire.borrow_mut().send_interim(head);
        }
    }

    /// Has this told when nothing is left to be sent by the client, which may be so already.
    pub(crate) fn tell_when_sent(&mut self, asked: &Rc<Asked>) {
        self.asked = (!self.ended).then(|| Rc::clone(asked));
        if self.ended {
            asked.all_sent();
        }
    }

    /// Has this told of the bytes that come, and of those that have come.
    pub(crate) fn tell_of_bytes(&mut self, outstanding: &Rc<Outstanding>) {
        outstanding.passed(self.received);
        match self.ended {
            true => outstanding.ended(),
            false => self.outstanding = Some(Rc::clone(outstanding)),
        }
    }

    /// Waits for as long as it takes from now on.
    pub(crate) fn stop_watching_the_clock(&mut self) {
        self.pace = None;
        self.deadline.clear();
    }

    /// Starts over, if everything that was handed out is still here. One that failed is not: what is left of it would look like
    /// its end.
    pub(crate) fn rewind(&mut self) -> bool {
        self.rewound = self.pieces > 0;
        self.trailers_out = false;
        self.pieces <= 1 && self.failed.is_none()
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let piece = self.poll_next(cx);
        if self.ended
            && let Some(outstanding) = self.outstanding.take()
        {
            outstanding.ended();
        }
        if self.ended
            && let Some(asked) = self.asked.take()
        {
            asked.all_sent();
        }
        piece
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if std::mem::take(&mut self.rewound)
            && let Some(first) = &self.first
        {
            return Poll::Ready(Some(Ok(first.clone())));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let Poll::Ready(piece) = self.source.poll_piece(cx) else {
                self.waiting = true;
                return self.poll_too_slow(cx);
            };
            self.waiting = false;
            self.deadline.clear();
            match piece {
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return self.fail(error),
                Some(Ok(BodyPiece::Trailers(trailers))) => self.keep(trailers),
                Some(Ok(BodyPiece::Data(piece))) if piece.is_empty() => {}
                Some(Ok(BodyPiece::Data(piece))) => {
                    self.received += piece.len() as u64;
                    if let Some(outstanding) = &self.outstanding {
                        outstanding.passed(piece.len() as u64);
                    }
                    if self.received > self.limit {
                        return self.fail(BodyError::TooLarge);
                    }
                    self.pieces += 1;
                    self.first = (self.pieces == 1).then(|| piece.clone());
                    if self.length == Some(self.received) {
                        self.ended = true;
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
            }
        }
    }

    /// Keeps of the trailers what may be sent on.
    fn keep(&mut self, mut trailers: Box<HeaderMap>) {
        let withheld = |name: &HeaderName| {
            let mut names = self.withheld.iter();
            names.any(|withheld| is_same_field(withheld, name))
        };
        remove_where(&mut trailers, |name| !may_trail(name) || withheld(name));
        self.trailers = (!trailers.is_empty()).then_some(trailers);
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.failed = Some(error);
        Poll::Ready(Some(Err(error)))
    }

    /// Nothing came: for how long will we wait?
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(pace) = self.pace else {
            return Poll::Pending;
        };
        if !self.deadline.is_set() {
            let now = Instant::now();
            let since = *self.slow_since.get_or_insert(now);
            let average = 2 * pace.idle + Duration::from_secs(self.received / pace.min_rate.max(1));
            self.deadline.set((now + pace.idle).min(since + average));
        }
        ready!(self.deadline.poll(cx));
        self.fail(BodyError::Timeout)
    }
}
