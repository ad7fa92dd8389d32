//! How often one client may ask. Only what was declared: who has asked how often is for the data plane to remember.

use super::ApplyFilter;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A limit for each client address (IPv6: each /64, which is what one customer gets). More is answered 429.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in each [`RateLimit::per`], at least 1.
    pub requests: u32,
    /// Not zero.
    pub per: Duration,
    /// Requests that a client which has rested may make at once, at least 1.
    pub at_once: u32,
    /// Clients that are not limited.
    pub exempt: Vec<IpNet>,
}

impl RateLimit {
    /// How long it takes until one more request is allowed.
    pub fn interval(&self) -> Duration {
        // A limit of more than a request a nanosecond is none.
        (self.per / self.requests.max(1)).max(Duration::from_nanos(1))
    }

    /// Whether a client is not limited.
    pub fn exempts(&self, client: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(&client))
    }
}

/// Nothing: it takes a memory.
impl ApplyFilter for RateLimit {}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            per,
            at_once,
            ..
        } = self;
        write!(f, "rate<={requests}/{per:?} at-once<={at_once}")?;
        for network in &self.exempt {
            write!(f, " unlimited={network}")?;
        }
        Ok(())
    }
}
