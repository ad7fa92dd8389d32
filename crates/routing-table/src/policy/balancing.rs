//! Which endpoint gets the next request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balancing {
    /// Each in turn, in proportion to weight, spread evenly (smooth weighted round robin). Exact over all threads.
    #[default]
    RoundRobin,
    /// RFC 2782: the lowest priority that can be reached, and in it at random in proportion to weight.
    SrvRfc2782,
    /// One cycle through all priorities, lowest first, and in each by smooth weighted round robin: weights 30/20/40 with
    /// priorities 0/0/10 give b1 b2 b1 b2 b1 b3 b3 b3 b3.
    SrvPriorityCycle,
    /// The endpoint with the fewest requests in progress, by weight: of all in a small cluster, of two at random else.
    LeastRequest,
    /// The endpoint with the fewest connections in use, by weight, of all.
    LeastConnections,
    /// The endpoint with the least expected wait: a moving average of its answer time that rises at once and decays slowly,
    /// times its requests in progress.
    PeakEwma,
    /// Nearly all to the endpoint with the least 90th percentile of its answer times lately, a little to the second, and to all
    /// others what tells theirs.
    LatencyRank,
    /// At random in proportion to weight.
    Random,
    /// By consistent hashing on a ring: when an endpoint goes only its own requests move.
    RingHash(HashOn),
    /// By Maglev hashing: even, and nearly as stable.
    Maglev(HashOn),
    /// By the client's address, by rendezvous hashing: when an endpoint goes only its own clients move.
    SourceIp,
    /// The endpoint that has moved the fewest bytes lately, both ways.
    LeastBandwidth,
    /// The endpoint with the least cost in progress.
    Cost(Cost),
    /// By an order that is none of ours, by its name.
    Custom(Arc<str>),
}

/// What of a request is hashed. A request without it is given to any endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address, as access rules see it.
    ClientIp,
    /// The first value of a field; the name in lower case.
    Header(Arc<str>),
    /// A cookie's value.
    Cookie(Arc<str>),
    /// The first value of a parameter of the query, not decoded.
    Query(Arc<str>),
    /// The path in normal form, without the query.
    Path,
    /// The path in normal form, and the query as it came.
    PathAndQuery,
}

/// What a request costs while it is in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// `base` and, of its declared body, `per_mebibyte`; bytes that have passed are taken off again.
    Length {
        /// At least 1. Default 1.
        base: u32,
        /// Default 1.
        per_mebibyte: u32,
    },
    /// The number in a field; 1 where there is none. The name in lower case.
    Header(Arc<str>),
}

/// A client stays at its endpoint by a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Name of the cookie. Default `tidegate`.
    pub cookie: Arc<str>,
    /// What happens when there are more endpoints. Where it is [`AffinityMode::Balanced`] the policy's [`Balancing`] has no say.
    pub mode: AffinityMode,
    /// How long the client keeps it (`Max-Age`). Default: until it is closed.
    pub max_age: Option<Duration>,
    /// Its `Path`. Default: the path of the route, so that Services under one host do not take each other's.
    pub path: Option<Arc<str>>,
    /// Its `Domain`. Default: none.
    pub domain: Option<Arc<str>>,
    /// Its `SameSite`: `Strict`, `Lax` or `None`. Default: none given.
    pub same_site: Option<&'static str>,
    /// Whether it is for HTTPS only. Default: where it was set over HTTPS.
    pub secure: Option<bool>,
}

/// What becomes of clients when endpoints come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AffinityMode {
    /// The cookie names a place on a ring: a new endpoint takes its share of the clients there are.
    #[default]
    Balanced,
    /// The cookie names an endpoint: a client stays until its endpoint is gone.
    Persistent,
}

impl Affinity {
    /// A cookie of this name, with the defaults of the rest.
    pub fn new(cookie: &str) -> Self {
        Self {
            cookie: cookie.into(),
            mode: AffinityMode::default(),
            max_age: None,
            path: None,
            domain: None,
            same_site: None,
            secure: None,
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            AffinityMode::Balanced => "balanced",
            AffinityMode::Persistent => "persistent",
        };
        write!(f, "cookie {} ({mode})", self.cookie)?;
        if let Some(path) = &self.path {
            write!(f, " Path={path}")?;
        }
        if let Some(domain) = &self.domain {
            write!(f, " Domain={domain}")?;
        }
        if let Some(age) = self.max_age {
            write!(f, " Max-Age={}", age.as_secs())?;
        }
        if let Some(same_site) = self.same_site {
            write!(f, " SameSite={same_site}")?;
        }
        match self.secure {
            Some(true) => f.write_str(" Secure"),
            Some(false) => f.write_str(" not Secure"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for HashOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client-ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path => f.write_str("path"),
            Self::PathAndQuery => f.write_str("path-and-query"),
        }
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::RingHash(on) | Self::Maglev(on) => write!(f, " on {on}"),
            Self::Cost(Cost::Length { base, per_mebibyte }) => {
                write!(f, " {base}+{per_mebibyte}/MiB")
            }
            Self::Cost(Cost::Header(name)) => write!(f, " of header:{name}"),
            Self::Custom(name) => write!(f, " {name}"),
            _ => Ok(()),
        }
    }
}

impl Balancing {
    /// The word for it that files and logs use.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::SrvRfc2782 => "srv_rfc2782",
            Self::SrvPriorityCycle => "srv_priority_cycle",
            Self::LeastRequest => "least_request",
            Self::LeastConnections => "least_connections",
            Self::PeakEwma => "peak_ewma",
            Self::LatencyRank => "latency_rank",
            Self::Random => "random",
            Self::RingHash(_) => "ring_hash",
            Self::Maglev(_) => "maglev",
            Self::SourceIp => "source_ip",
            Self::LeastBandwidth => "least_bandwidth",
            Self::Cost(_) => "cost",
            Self::Custom(_) => "custom",
        }
    }
}
