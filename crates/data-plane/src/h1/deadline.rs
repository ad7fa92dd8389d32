//! A deadline that is cheap to move: the timer underneath is armed once and looked at again only when it fires.
//!
//! A request moves its deadlines several times and nearly always ends before any of them. Arming a timer for each move
//! would cost more than routing does, so a move only writes down the new instant; when the timer fires early it is armed
//! for what is left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// A movable deadline. Without an instant it never fires.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Fires at this instant from now on.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = Some(at);
    }

    /// Never fires until set again.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// Whether an instant is set.
    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready when the instant has passed; else the task is woken in time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_last_instant_it_was_moved_to() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(1));
        assert!(
            poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
        deadline.set(start + Duration::from_secs(5));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        deadline.set(start + Duration::from_secs(60));
        assert!(
            poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
        deadline.set(start + Duration::from_secs(7));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(
            start.elapsed().as_secs(),
            7,
            "an earlier instant counts too"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cleared_deadline_does_not_fire() {
        let mut deadline = Deadline::default();
        deadline.set(Instant::now());
        deadline.clear();
        assert!(
            poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
    }
}
