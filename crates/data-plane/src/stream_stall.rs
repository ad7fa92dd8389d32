//! Cuts HTTP/2 streams whose client gives no window: what [`crate::client_io`] does for a connection, for one stream on it. And
//! counts those that their client takes back at once, which `h2` does not once a request was handed out (CVE-2023-44487): each may
//! have cost an endpoint a request, and its client two small frames.
//!
//! hyper asks an answer for its next piece only when the client has room for it, so a stream that rests without having asked
//! rests because of its client.

use crate::client::ClientConnection;
use crate::h1::deadline::Deadline;
use pin_project_lite::pin_project;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// What the streams of a connection are doing. They are polled one at a time, so one value is enough for all.
#[derive(Debug, Default)]
pub(crate) struct StreamProgress {
    /// The stream that is being polled waits for its upstream.
    waits_for_upstream: Cell<bool>,
    /// Pieces of answers handed out.
    pieces: Cell<u64>,
    /// Requests handed out.
    begun: Cell<u32>,
    /// Those of them that ended young and without an answer.
    taken_back: Cell<u32>,
}

/// A stream that ends within this, and before there is an answer, was taken back at once. A client that gives up a slow request
/// takes longer.
const YOUNG: Duration = Duration::from_secs(1);
/// So many may be taken back: a page that is left may be worth a hundred.
const TAKEN_BACK: u32 = 250;

impl StreamProgress {
    /// Notes that a request was handed out; the guard is told when there is an answer.
    pub(crate) fn begin(&self) -> Unanswered<'_> {
        self.begun.set(self.begun.get().saturating_add(1));
        Unanswered {
            streams: self,
            since: Instant::now(),
            is_answered: false,
        }
    }

    /// Whether the client takes back more than half of its requests, and many.
    pub(crate) fn are_abused(&self) -> bool {
        let taken_back = self.taken_back.get();
        taken_back >= TAKEN_BACK && taken_back > self.begun.get() / 2
    }

    /// Notes that a request or an answer was asked to go on, and whether it could.
    pub(crate) fn asked<T>(&self, polled: &Poll<T>) {
        match polled {
            Poll::Pending => self.waits_for_upstream.set(true),
            Poll::Ready(_) => self.pieces.set(self.pieces.get() + 1),
        }
    }
}

/// A request without an answer yet. Dropped like this it was taken back, or its connection has ended, which ends the count too.
pub(crate) struct Unanswered<'a> {
    streams: &'a StreamProgress,
    since: Instant,
    is_answered: bool,
}

impl Unanswered<'_> {
    /// There is an answer.
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.since.elapsed() < YOUNG {
            let count = &self.streams.taken_back;
            count.set(count.get().saturating_add(1));
        }
    }
}

/// Runs the streams of a connection on this thread, each with its limit.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(crate) client: Rc<ClientConnection>,
    /// Longest wait for the client to take something of an answer.
    pub(crate) stall: Duration,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(Watched {
            stream,
            client: Rc::clone(&self.client),
            stall: self.stall,
            deadline: Deadline::default(),
        });
    }
}

pin_project! {
    struct Watched<F> {
        #[pin]
        stream: F,
        client: Rc<ClientConnection>,
        stall: Duration,
        deadline: Deadline,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let progress = &this.client.streams;
        progress.waits_for_upstream.set(false);
        let before = progress.pieces.get();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let waits = progress.waits_for_upstream.get();
        if waits || progress.pieces.get() != before {
            this.deadline.clear();
        }
        if waits {
            return Poll::Pending;
        }
        if !this.deadline.is_set() {
            this.deadline.set(Instant::now() + *this.stall);
        }
        ready!(this.deadline.poll(cx));
        // Dropping the stream resets it (RFC 9113 section 8.1.1).
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_back(streams: &StreamProgress, count: u32) {
        (0..count).for_each(|_| drop(streams.begin()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_back_many_of_its_requests_abuses_them() {
        let streams = StreamProgress::default();
        take_back(&streams, TAKEN_BACK - 1);
        assert!(!streams.are_abused());
        take_back(&streams, 1);
        assert!(streams.are_abused());
        // Not one that does more with them.
        (0..TAKEN_BACK).for_each(|_| streams.begin().answered());
        assert!(!streams.are_abused());
        take_back(&streams, 1);
        assert!(streams.are_abused());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_an_answer_may_give_up() {
        let streams = StreamProgress::default();
        for _ in 0..2 * TAKEN_BACK {
            let unanswered = streams.begin();
            tokio::time::advance(YOUNG).await;
            drop(unanswered);
        }
        assert!(!streams.are_abused());
    }
}
