//! Whose turn it is to begin: a worker finishes requests before it begins many more.
//!
//! When more clients have sent a request than the worker can serve at once, beginning them all would put each a little
//! further, with a thousand requests' buffers and connections in use and none of them in the processor's cache. So of the
//! requests that are there at one time a few begin; what they set off (an endpoint's answer, most of all) goes before the
//! next few. The others wait in the kernel, in the order in which they came. Where there is no crowd nothing waits: a turn
//! takes as long as the worker needs for what is ready, and costs nothing else.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Requests that begin in one turn.
const BEGIN: u32 = 16;

/// The turns of one worker.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Requests that have begun since the last turn.
    begun: Cell<u32>,
    waiting: RefCell<VecDeque<Waker>>,
    /// The number of the next place in the queue.
    next: Cell<u64>,
    /// Places below this one have been called.
    called: Cell<u64>,
    /// Wakes [`Turns::run`].
    caller: RefCell<Option<Waker>>,
}

/// A place in the queue, or none.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<u64>);

impl Place {
    /// Whether a request waits to begin.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.is_some()
    }
}

impl Turns {
    /// Ready when a request may begin. It is always the same task that asks with one place.
    pub(crate) fn poll_begin(&self, place: &mut Place, cx: &mut Context<'_>) -> Poll<()> {
        match place.0 {
            Some(number) if number < self.called.get() => place.0 = None,
            Some(_) => return Poll::Pending,
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if self.begun.get() >= BEGIN || !waiting.is_empty() {
                    waiting.push_back(cx.waker().clone());
                    place.0 = Some(self.next.replace(self.next.get() + 1));
                    if let Some(caller) = self.caller.take() {
                        caller.wake();
                    }
                    return Poll::Pending;
                }
                self.begun.set(self.begun.get() + 1);
            }
        }
        Poll::Ready(())
    }

    /// Calls those who wait, a turn after the other; it never ends.
    pub(crate) async fn run(&self) {
        loop {
            poll_fn(|cx| {
                if !self.waiting.borrow().is_empty() {
                    return Poll::Ready(());
                }
                self.caller.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
            // After all that is ready, and what the sockets have to say meanwhile.
            tokio::task::yield_now().await;
            self.call();
        }
    }

    fn call(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(BEGIN as usize);
        self.called.set(self.called.get() + count as u64);
        self.begun.set(u32::try_from(count).unwrap_or(BEGIN));
        waiting.drain(..count).for_each(Waker::wake);
    }
}

#[cfg(test)]
#[path = "tests/turns.rs"]
mod tests;
