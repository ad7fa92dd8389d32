//! Cuts HTTP/2 streams whose client gives no window: what [`crate::client_io`] does for a connection, for one stream on it.
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
}

impl StreamProgress {
    /// Notes that a request or an answer was asked to go on, and whether it could.
    pub(crate) fn asked<T>(&self, polled: &Poll<T>) {
        match polled {
            Poll::Pending => self.waits_for_upstream.set(true),
            Poll::Ready(_) => self.pieces.set(self.pieces.get() + 1),
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
