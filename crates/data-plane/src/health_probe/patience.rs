//! Waits for an answer, and knows how late it was itself.
//!
//! A process that was stopped for a while, or got no processor, finds every timeout over at once. That says nothing of
//! endpoints: the time it was not there is given to them again, and it is told how long that was.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How often it looks at the clock.
const SLICES: u32 = 8;
/// The longest it waits, whatever is declared.
const MOST: Duration = Duration::from_secs(60 * 60);

/// What came of it, `None` where the time was over, and how late we were.
pub(super) async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = T>,
) -> (Option<T>, Duration) {
    let mut answer = pin!(answer);
    let mut late = Duration::ZERO;
    for _ in 0..SLICES {
        let due = Instant::now() + timeout.min(MOST) / SLICES;
        let answered = timeout_at(due, answer.as_mut()).await;
        late += due.elapsed();
        if let Ok(answered) = answered {
            return (Some(answered), late);
        }
    }
    (None, late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    /// Holds this thread up for a while.
    async fn stop(time: Duration) {
        tokio::spawn(async move { std::thread::sleep(time) });
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn a_stopped_process_knows_that_it_was_late() {
        let timeout = Duration::from_millis(100);
        let started = Instant::now();
        let stopped = async {
            stop(Duration::from_millis(1000)).await;
            pending::<()>().await;
        };
        let (answer, late) = within(timeout, stopped).await;
        assert_eq!(answer, None);
        assert!(late >= Duration::from_millis(900), "{late:?}");
        assert!(!balance::active_check::counts(false, late, timeout));
        assert!(started.elapsed() >= Duration::from_millis(1000));
    }

    #[tokio::test]
    async fn the_time_we_were_away_is_not_taken_from_the_answer() {
        let answer = async {
            stop(Duration::from_millis(1000)).await;
            // Two rounds more: a connection that was made has to be written to and read from.
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            7
        };
        let (answer, _) = within(Duration::from_millis(200), answer).await;
        assert_eq!(answer, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_as_long_as_it_says() {
        let started = Instant::now();
        let (answer, _) = within(Duration::from_millis(800), pending::<()>()).await;
        assert_eq!(answer, None);
        let took = started.elapsed();
        let expected = Duration::from_millis(800)..Duration::from_millis(820);
        assert!(expected.contains(&took), "{took:?}");
    }
}
