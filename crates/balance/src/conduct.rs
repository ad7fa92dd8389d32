//! What is seen of one endpoint in real traffic, for as long as some table has it, and what an attempt may come to.
//!
//! Whether that is good enough is judged elsewhere: [`crate::outlier`], [`crate::breaker`].

use crate::breaker::{Breaker, Change, Trial};
use crate::outlier::Outlier;
use crate::waiting::{Ticket, Waiting};
use routing_table::policy::{CircuitBreaker, OutlierDetection};
use std::time::Duration;

/// What is seen of one endpoint.
#[derive(Debug, Default)]
pub struct Conduct {
    /// Who waits for it.
    pub waiting: Waiting,
    /// As outlier detection sees it.
    pub outlier: Outlier,
    /// As its circuit breaker sees it.
    pub breaker: Breaker,
}

/// What has come of one attempt. What is not the endpoint's doing (a client that left, a limit of ours) is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// An answer below 500.
    Good,
    /// Another 5xx.
    Error,
    /// 502, 503 or 504.
    GatewayError,
    /// No answer: not connected, closed, timed out, or what came is no answer.
    Nothing,
}

impl Reply {
    /// What an answer with this status is.
    pub fn of(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500.. => Self::Error,
            _ => Self::Good,
        }
    }

    /// Whether it is no error.
    pub fn is_good(self) -> bool {
        self == Self::Good
    }
}

impl Conduct {
    /// A request waits for its answer from now on.
    pub fn asked(&self, now: Duration) -> Ticket {
        self.outlier.asked(now);
        self.waiting.begin(now)
    }

    /// It waits no longer, for whatever reason.
    pub fn left(&self, ticket: Ticket, now: Duration) {
        self.waiting.end(ticket);
        if self.waiting.waits(now).count == 0 {
            self.outlier.nobody_waits();
        }
    }

    /// Ends the trial of a breaker. `None`: it was given up before.
    pub fn tried(
        &self,
        trial: Trial,
        reply: Reply,
        took: Option<Duration>,
        config: &CircuitBreaker,
        now: Duration,
    ) -> Option<Change> {
        if reply.is_good() {
            // Who was sent before it opened may still wait, and says nothing of how it is now.
            self.waiting.start_over();
        }
        self.breaker.tried(trial, reply, took, config, now)
    }

    /// An ejection is over: it is judged afresh.
    pub fn back(&self, config: Option<&OutlierDetection>, now: Duration) {
        self.waiting.start_over();
        self.outlier.back(config, now);
    }
}
