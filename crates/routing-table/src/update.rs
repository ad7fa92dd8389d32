//! All that crosses from the controller to the data plane, and when what did not get across as a whole is tried again.

use crate::endpoint::Endpoint;
use crate::id::ClusterId;
use crate::table::RoutingTable;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Endpoints by cluster. A cluster that is absent is not touched; one with an empty list has no endpoints.
pub type EndpointSets = BTreeMap<ClusterId, Vec<Endpoint>>;

/// One change to what the data plane serves.
#[derive(Debug, Clone)]
pub enum Update {
    /// A whole new table, with the endpoints of its clusters. Published as one.
    Table(Arc<RoutingTable>, EndpointSets),
    /// New endpoints for these clusters; the table stays.
    Endpoints(EndpointSets),
    /// Nothing new, but another attempt to listen where that was not possible before.
    Listeners,
}

/// The first pause before another attempt; each is twice as long as the one before it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What of a table could not be published, a port that is taken for example, and when to try [`Update::Listeners`].
#[derive(Debug, Default)]
pub struct Unpublished {
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    why: String,
    pause: Duration,
    due: Instant,
}

impl Unpublished {
    /// Takes note of what became of a table, or of another attempt. Gives back why it failed if that has not been told yet.
    pub fn note(&mut self, result: Result<(), String>, now: Instant) -> Option<&str> {
        let Err(why) = result else {
            self.failed = None;
            return None;
        };
        let before = self.failed.take().filter(|before| before.why == why);
        let news = before.is_none();
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let due = now + pause;
        let failed = self.failed.insert(Failed { why, pause, due });
        news.then_some(&*failed.why)
    }

    /// When to try again; `None` where there is nothing to.
    pub fn due(&self) -> Option<Instant> {
        self.failed.as_ref().map(|failed| failed.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "some moment to begin at")]
    fn attempts_come_at_longer_and_longer_intervals_and_are_told_once() {
        let mut unpublished = Unpublished::default();
        let start = Instant::now();
        assert_eq!(unpublished.due(), None);
        for (attempt, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            let told = unpublished.note(Err("taken".into()), start).is_some();
            assert_eq!(told, attempt == 0);
            assert_eq!(unpublished.due(), Some(start + Duration::from_secs(pause)));
        }
        assert_eq!(unpublished.note(Err("other".into()), start), Some("other"));
        assert_eq!(unpublished.due(), Some(start + FIRST_PAUSE));
        assert_eq!(unpublished.note(Ok(()), start), None);
        assert_eq!(unpublished.due(), None);
    }
}
