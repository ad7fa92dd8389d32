//! How a cluster's endpoints are chosen and judged. Every source (a `BackendPolicy`, annotations, the standalone file) makes
//! this one value of what it declares.
//!
//! - [`balancing`]: which endpoint gets the next request.
//! - [`health`]: which endpoints get none: what we probe (active checks, agents) and what we see in real traffic (outlier
//!   detection, the circuit breaker).

pub mod balancing;
pub mod health;
mod pattern;

pub use balancing::{Affinity, AffinityMode, Balancing, Cost, HashOn};
pub use health::{
    ActiveCheck, AgentCheck, CheckKind, CircuitBreaker, Expected, OutlierDetection, StatusRange,
};
pub use pattern::Pattern;

use std::fmt;
use std::time::Duration;

/// Policy of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// How long a client may be silent for its endpoint to be remembered, where it is chosen by [`Balancing::SourceIp`].
    /// Default: it is not remembered.
    pub sticky_for: Option<Duration>,
    /// Whether a client stays at its endpoint by a cookie. Default: no.
    pub affinity: Option<Affinity>,
    /// Over how long a new endpoint, or one that has come back, rises from a tenth of its share to all of it. Default: at
    /// once.
    pub slow_start: Option<Duration>,
    /// Use no more endpoints than so many, chosen by this replica's name. Default: all.
    pub subset: Option<u32>,
    /// Endpoints of the replica's own zone get requests before others. Default: no.
    pub prefers_zone: bool,
    /// Endpoints are probed. Default: no.
    pub active_check: Option<ActiveCheck>,
    /// Endpoints are asked how they are. Default: no.
    pub agent_check: Option<AgentCheck>,
    /// Endpoints are judged by the requests they get. Default: no.
    pub outlier: Option<OutlierDetection>,
    /// Endpoints get nothing for a while when they are about to fail. Default: no.
    pub breaker: Option<CircuitBreaker>,
    /// When less than this share of all endpoints is available, in percent, health is ignored: what is left would not bear
    /// the load. 0 to 100. Default 0: only when none is left.
    pub panic_threshold: u8,
    /// Whether an endpoint that answers 429 or 503 with `Retry-After` gets less until then. Default: yes.
    pub heeds_retry_after: bool,
}

impl Policy {
    /// Whether what endpoints do with requests has to be remembered.
    pub fn judges_traffic(&self) -> bool {
        self.outlier.is_some() || self.breaker.is_some()
    }
}

/// What differs from the default, in words that tell any two policies apart.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut words = Vec::new();
        if self.balancing != usual.balancing {
            words.push(self.balancing.to_string());
        }
        if let Some(time) = self.sticky_for {
            words.push(format!("sticky for {time:?}"));
        }
        if let Some(affinity) = &self.affinity {
            words.push(affinity.to_string());
        }
        if let Some(time) = self.slow_start {
            words.push(format!("slow start {time:?}"));
        }
        if let Some(most) = self.subset {
            words.push(format!("subset of {most}"));
        }
        if self.prefers_zone {
            words.push("own zone first".to_owned());
        }
        if let Some(check) = &self.active_check {
            words.push(check.to_string());
        }
        if let Some(check) = &self.agent_check {
            words.push(check.to_string());
        }
        if let Some(outlier) = &self.outlier {
            words.push(outlier.to_string());
        }
        if let Some(breaker) = &self.breaker {
            words.push(breaker.to_string());
        }
        if self.panic_threshold != usual.panic_threshold {
            words.push(format!("panic below {} %", self.panic_threshold));
        }
        if self.heeds_retry_after != usual.heeds_retry_after {
            words.push("Retry-After ignored".to_owned());
        }
        f.write_str(&words.join(", "))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balancing: Balancing::default(),
            sticky_for: None,
            affinity: None,
            slow_start: None,
            subset: None,
            prefers_zone: false,
            active_check: None,
            agent_check: None,
            outlier: None,
            breaker: None,
            panic_threshold: 0,
            heeds_retry_after: true,
        }
    }
}
