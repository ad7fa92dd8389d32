//! What people are told of an endpoint: why it gets nothing, what its last check said, and what its agent and an operator
//! want of it.
//!
//! Behind a lock: no request reads it. What requests read of it is made from it when it is written.

use crate::endpoint_state::{Bar, EndpointState};
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// Longest text that is kept, in bytes.
const MOST_TEXT: usize = 300;

/// Why an endpoint gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Who says so.
    pub bar: Bar,
    /// In words.
    pub why: String,
    /// Since when.
    pub since: Duration,
}

/// What came of the last check of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCheck {
    /// What was asked: `http`, `tcp`, ...
    pub kind: &'static str,
    /// Whether it was a good answer.
    pub passed: bool,
    /// In words.
    pub why: Cow<'static, str>,
    /// When it ended.
    pub at: Duration,
}

/// Who may want something of an endpoint. What one wants does not overwrite what the other does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Its agent.
    Agent,
    /// An operator.
    Operator,
}

/// Who checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// We probe it.
    Active,
    /// We ask its agent.
    Agent,
}

#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The last of each bar, also of those that do not hold any more.
    reasons: Vec<Reason>,
    last: [Option<LastCheck>; 2],
    most: [Option<u32>; 2],
}

impl EndpointState {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`EndpointState::bar`], with the reason in words.
    pub fn bar_because(&self, bar: Bar, why: impl Display, now: Duration) -> bool {
        let mut notes = self.notes();
        let is_new = self.bar(bar);
        if is_new {
            let mut why = why.to_string();
            why.truncate(why.floor_char_boundary(MOST_TEXT));
            notes.reasons.retain(|reason| reason.bar != bar);
            notes.reasons.push(Reason {
                bar,
                why,
                since: now,
            });
        }
        is_new
    }

    /// Every reason that holds, in the order of [`Bar::ALL`].
    pub fn reasons(&self) -> Vec<Reason> {
        let notes = self.notes();
        let holding = Bar::ALL.iter().filter(|(bar, _)| self.has(*bar));
        holding
            .map(|(bar, _)| {
                let noted = notes.reasons.iter().find(|reason| reason.bar == *bar);
                noted.cloned().unwrap_or_else(|| Reason {
                    bar: *bar,
                    why: String::new(),
                    since: self.since(),
                })
            })
            .collect()
    }

    /// Notes what came of a check.
    pub fn checked(&self, check: Check, last: LastCheck) {
        self.notes().last[check as usize] = Some(last);
    }

    /// What came of the last check.
    pub fn last_check(&self, check: Check) -> Option<LastCheck> {
        self.notes().last[check as usize].clone()
    }

    /// Forgets the last check: there is none any more.
    pub fn forget_check(&self, check: Check) {
        self.notes().last[check as usize] = None;
    }

    /// Sets the most requests that somebody wants it to have in progress; the least of all holds. Whether that is new.
    pub fn set_most(&self, voice: Voice, most: Option<u32>) -> bool {
        let mut notes = self.notes();
        let is_new = notes.most[voice as usize] != most;
        notes.most[voice as usize] = most;
        let least = notes.most.iter().flatten().min();
        self.store_most(least.copied().unwrap_or(u32::MAX));
        is_new
    }

    /// The most requests that somebody wants it to have in progress.
    pub fn most_of(&self, voice: Voice) -> Option<u32> {
        self.notes().most[voice as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> EndpointState {
        EndpointState::new(([127, 0, 0, 1], 80).into(), Duration::ZERO)
    }

    #[test]
    fn reasons_are_told_while_they_hold() {
        let (state, second) = (state(), Duration::from_secs(1));
        assert!(state.bar_because(Bar::Probe, "status 500", second));
        assert!(!state.bar_because(Bar::Probe, "later", 2 * second));
        state.bar(Bar::Ejected);
        let told: Vec<_> = state
            .reasons()
            .into_iter()
            .map(|reason| (reason.bar, reason.why))
            .collect();
        let expected = [
            (Bar::Probe, "status 500".to_owned()),
            (Bar::Ejected, String::new()),
        ];
        assert_eq!(told, expected);
        state.lift(Bar::Probe, second);
        assert_eq!(state.reasons().len(), 1);
        state.bar_because(Bar::Probe, "ä".repeat(MOST_TEXT), second);
        assert_eq!(state.reasons()[0].why.len(), MOST_TEXT);
    }

    #[test]
    fn the_least_of_what_is_wanted_holds() {
        let state = state();
        assert_eq!(state.most(), u32::MAX);
        assert!(state.set_most(Voice::Agent, Some(10)));
        assert!(state.set_most(Voice::Operator, Some(3)));
        assert_eq!(state.most(), 3);
        assert!(state.set_most(Voice::Operator, None));
        assert!(!state.set_most(Voice::Operator, None));
        assert_eq!(state.most(), 10);
    }

    #[test]
    fn shares_are_multiplied() {
        let state = state();
        assert!(state.set_weight_percent(Voice::Agent, 50));
        assert!(state.set_weight_percent(Voice::Operator, 50));
        assert_eq!(state.weight_percent(), 25);
        assert!(!state.set_weight_percent(Voice::Operator, 50));
        state.set_weight_percent(Voice::Agent, 1);
        assert_eq!(state.weight_percent(), 1, "who has some keeps some");
        state.set_weight_percent(Voice::Agent, 0);
        assert_eq!(state.weight_percent(), 0);
    }
}
