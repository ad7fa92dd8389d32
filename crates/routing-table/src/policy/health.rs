//! Which endpoints get no requests, and why.

use super::Pattern;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// We probe each endpoint, from the moment it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// Between two probes of one endpoint, give or take a tenth. Default 5 s.
    pub interval: Duration,
    /// For one probe, connecting included. Default 2 s.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out. At least 1. Default 3.
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back. At least 1. Default 2.
    pub healthy_after: u32,
    /// Probe this port instead of the endpoint's own.
    pub port: Option<u16>,
    /// Whether a new endpoint gets requests before its first probe has ended. Default: yes.
    pub starts_healthy: bool,
}

/// What a probe asks, and what is a good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// HTTP/1.1.
    Http {
        /// Default `GET`.
        method: Arc<str>,
        /// Begins with `/`. Default `/`.
        path: Arc<str>,
        /// `Host`; default: the endpoint's address.
        host: Option<Arc<str>>,
        /// Good statuses. Default 200 to 399.
        expected: Vec<StatusRange>,
    },
    /// A connection is accepted.
    Tcp,
    /// A TLS handshake ends well, whatever the certificate says.
    Tls,
    /// `grpc.health.v1.Health/Check` says `SERVING`.
    Grpc {
        /// The service that is asked about; empty is the server as a whole.
        service: Arc<str>,
    },
    /// These bytes are sent, and something is expected.
    Bytes {
        /// May be empty.
        send: Arc<[u8]>,
        /// What is good.
        expect: Expected,
    },
    /// The same in one datagram each way: there must be an answer.
    Udp {
        /// May be empty.
        send: Arc<[u8]>,
        /// What is good.
        expect: Expected,
    },
}

/// What an answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It begins with these bytes, which may be none.
    Start(Arc<[u8]>),
    /// This fits somewhere in its beginning.
    Pattern(Pattern),
}

/// Statuses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// 100 to 599.
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
}

/// Each endpoint's agent is asked for a line (HAProxy's agent-check protocol): `50%`, `drain`, `up`, `down`, `maint`, ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCheck {
    /// The agent's port at the endpoint's address.
    pub port: u16,
    /// What it is sent; may be empty.
    pub send: Arc<str>,
    /// Between two questions. Default 5 s.
    pub interval: Duration,
    /// For its answer. Default 2 s.
    pub timeout: Duration,
}

/// Endpoints are judged by the requests they get, and ejected for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Errors in a row (5xx, or no answer at all) that eject it; `None`: not judged by it. Default 5.
    pub consecutive_errors: Option<u32>,
    /// Gateway errors in a row (502, 503, 504, or no answer) that eject it. Default: not judged by it.
    pub consecutive_gateway_errors: Option<u32>,
    /// Least share of requests without error over an interval, in percent; at least [`Self::min_requests`] must have been
    /// made. Default: not judged by it.
    pub success_rate: Option<u8>,
    /// Longest average time to an answer over an interval. Default: not judged by it.
    pub latency: Option<Duration>,
    /// Several requests wait and none was answered for this long, while other endpoints of the cluster answer: it is ejected
    /// before any timeout is reached. `None`: not judged by it. Default 2 s.
    pub unanswered: Option<Duration>,
    /// Requests in an interval below which rates are not judged. Default 20.
    pub min_requests: u32,
    /// How often rates are judged. Default 10 s.
    pub interval: Duration,
    /// For how long it is ejected the first time; the n-th time in a row n times as long. Default 30 s.
    pub ejection: Duration,
    /// The longest ejection. Default 300 s.
    pub max_ejection: Duration,
    /// Most endpoints ejected at once, in percent of all, but always one. Default 50.
    pub max_ejected: u8,
}

/// An endpoint gets nothing while its breaker is open; then one request tries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Opens when the average time to an answer in the window is longer. Default: not judged by it.
    pub latency: Option<Duration>,
    /// Opens when this share of the answers in the window are errors (5xx or none), in percent. Default: not judged by it.
    pub error_ratio: Option<u8>,
    /// Requests in the window below which it stays closed. Default 10.
    pub min_requests: u32,
    /// What is looked at: the last so long. Default 10 s.
    pub window: Duration,
    /// How long it stays open before one request tries. Default 5 s.
    pub open: Duration,
}

impl Default for ActiveCheck {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            unhealthy_after: 3,
            healthy_after: 2,
            port: None,
            starts_healthy: true,
        }
    }
}

impl AgentCheck {
    /// An agent at this port, with the defaults of the rest.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            send: "".into(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_errors: Some(5),
            consecutive_gateway_errors: None,
            success_rate: None,
            latency: None,
            unanswered: Some(Duration::from_secs(2)),
            min_requests: 20,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 50,
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            latency: None,
            error_ratio: None,
            min_requests: 10,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
        }
    }
}

impl fmt::Display for ActiveCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "probed by {} every {:?} within {:?}, out after {}, back after {}",
            self.kind, self.interval, self.timeout, self.unhealthy_after, self.healthy_after
        )?;
        if let Some(port) = self.port {
            write!(f, ", at port {port}")?;
        }
        match self.starts_healthy {
            true => Ok(()),
            false => f.write_str(", out at first"),
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http {
                method,
                path,
                host,
                expected,
            } => {
                write!(f, "http {method} {path}")?;
                if let Some(host) = host {
                    write!(f, " of {host}")?;
                }
                for (number, range) in expected.iter().enumerate() {
                    let before = if number == 0 { " for " } else { "/" };
                    write!(f, "{before}{range}")?;
                }
                Ok(())
            }
            Self::Tcp => f.write_str("tcp"),
            Self::Tls => f.write_str("tls"),
            Self::Grpc { service } => write!(f, "grpc {service:?}"),
            Self::Bytes { send, expect } => {
                write!(f, "bytes \"{}\" for {expect}", send.escape_ascii())
            }
            Self::Udp { send, expect } => {
                write!(f, "udp \"{}\" for {expect}", send.escape_ascii())
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Pattern(pattern) => write!(f, "/{pattern}/"),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for AgentCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "agent at port {} every {:?} within {:?}",
            self.port, self.interval, self.timeout
        )?;
        match self.send.is_empty() {
            true => Ok(()),
            false => write!(f, ", sent {:?}", self.send),
        }
    }
}

impl fmt::Display for OutlierDetection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ejected")?;
        if let Some(times) = self.consecutive_errors {
            write!(f, ", {times} errors")?;
        }
        if let Some(times) = self.consecutive_gateway_errors {
            write!(f, ", {times} gateway errors")?;
        }
        if let Some(percent) = self.success_rate {
            write!(f, ", success < {percent} %")?;
        }
        if let Some(latency) = self.latency {
            write!(f, ", latency > {latency:?}")?;
        }
        if let Some(time) = self.unanswered {
            write!(f, ", unanswered > {time:?}")?;
        }
        write!(
            f,
            ", of {} in {:?}, for {:?} to {:?}, {} % at most",
            self.min_requests, self.interval, self.ejection, self.max_ejection, self.max_ejected
        )
    }
}

impl fmt::Display for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("breaker")?;
        if let Some(latency) = self.latency {
            write!(f, ", latency > {latency:?}")?;
        }
        if let Some(percent) = self.error_ratio {
            write!(f, ", errors >= {percent} %")?;
        }
        write!(
            f,
            ", of {} in {:?}, open {:?}",
            self.min_requests, self.window, self.open
        )
    }
}
