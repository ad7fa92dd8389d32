//! A deadline that is cheap to move, and fair when we were away: the timer underneath is armed once and looked at again only
//! when it fires.
//!
//! A request moves its deadlines several times and nearly always ends before any of them. Arming a timer for each move
//! would cost more than routing does, so a move only writes down the new instant; when the timer fires early it is armed
//! for what is left.
//!
//! A process that was stopped for a while finds deadlines over together with the bytes that came meanwhile, and timers are
//! told first: `epoll_wait` is interrupted, and comes back without a word of sockets. So a deadline that fires late is not
//! over yet; it has as much time again as it was late, a second at most, once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Timers fire that late only if this thread was not there.
const LATE: Duration = Duration::from_millis(250);
/// Longest time that is given again.
const MOST_AGAIN: Duration = Duration::from_secs(1);

/// A movable deadline. Without an instant it never fires.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    /// It was late once, and had time again.
    was_late: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Fires at this instant from now on.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = Some(at);
        self.was_late = false;
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
            let now = Instant::now();
            let late = now.saturating_duration_since(at);
            let until = if now < at {
                at
            } else if late < LATE || self.was_late {
                return Poll::Ready(());
            } else {
                self.was_late = true;
                now + late.min(MOST_AGAIN)
            };
            self.at = Some(until);
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

/// Waits for something for so long; `None` when the time is over.
pub(crate) async fn within<T>(time: Duration, something: impl Future<Output = T>) -> Option<T> {
    let mut something = pin!(something);
    let mut deadline = Deadline::default();
    deadline.set(Instant::now() + time);
    poll_fn(|cx| match something.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => deadline.poll(cx).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Holds this thread up for a while, with the timers on their way.
    fn stop(time: Duration) {
        tokio::spawn(async move { std::thread::sleep(time) });
    }

    #[tokio::test]
    async fn what_came_while_we_were_away_is_seen() {
        stop(Duration::from_millis(600));
        let answer = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            7
        };
        let answer = within(Duration::from_millis(30), answer).await;
        assert_eq!(answer, Some(7));
    }

    #[tokio::test]
    async fn time_is_given_again_once_and_no_longer_than_it_was_late() {
        let start = Instant::now();
        stop(Duration::from_millis(600));
        let nothing = within(Duration::from_millis(300), std::future::pending::<()>()).await;
        assert_eq!(nothing, None);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(890), "{took:?}");
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start - Duration::from_secs(60));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(start.elapsed() >= Duration::from_millis(990));
        poll_fn(|cx| deadline.poll(cx)).await;
    }
}
