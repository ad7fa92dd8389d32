//! What the fields of a policy come to: defaults filled in, and what does not go together.

use crate::spec::{
    ActiveCheckSpec, AffinityModeName, AffinitySpec, AgentCheckSpec, BalancingName, CheckKindName,
    CircuitBreakerSpec, CostSpec, OutlierDetectionSpec, PolicySpec, SameSite,
};
use crate::value::Span;
use routing_table::policy::{
    ActiveCheck, Affinity, AffinityMode, AgentCheck, Balancing, CheckKind, CircuitBreaker, Cost,
    Expected, OutlierDetection, StatusRange,
};
use routing_table::{InFlightLimit, Policy};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Good statuses where none are declared.
const GOOD: StatusRange = StatusRange {
    first: 200,
    last: 399,
};

/// What a policy comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// For the cluster.
    pub policy: Policy,
    /// For every route to it.
    pub in_flight: Option<InFlightLimit>,
}

/// Fields that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Where: `activeCheck.path`.
    pub field: String,
    /// What is wrong, as a sentence without its end.
    pub reason: &'static str,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Found(Vec<Contradiction>);

impl Found {
    /// Notes that a field is given although it must not be.
    fn stray<T>(&mut self, field: &str, given: &Option<T>, reason: &'static str) {
        if given.is_some() {
            self.wrong(field, reason);
        }
    }

    fn wrong(&mut self, field: &str, reason: &'static str) {
        self.0.push(Contradiction {
            field: field.to_owned(),
            reason,
        });
    }
}

fn time(span: &Option<Span>, usual: Duration) -> Duration {
    span.as_ref().map_or(usual, |span| *span.get())
}

fn optional(span: &Option<Span>) -> Option<Duration> {
    span.as_ref().map(|span| *span.get())
}

impl PolicySpec {
    /// This, and where it says nothing, what is `below` it. `balancing`, `customBalancing`, `hashBy`, `stickyFor` and `cost` go
    /// together: whoever says one of them says all of them.
    #[must_use]
    pub fn laid_over(self, below: &Self) -> Self {
        let mut below = below.clone();
        if self.balancing.is_some()
            || self.custom_balancing.is_some()
            || self.hash_by.is_some()
            || self.sticky_for.is_some()
            || self.cost.is_some()
        {
            below.balancing = None;
            below.custom_balancing = None;
            below.hash_by = None;
            below.sticky_for = None;
            below.cost = None;
        }
        self.over(&below)
    }

    /// Fills in defaults. What contradicts itself has its default too, and is told.
    pub fn build(&self) -> (Built, Vec<Contradiction>) {
        let mut found = Found::default();
        let usual = Policy::default();
        let balancing = self.balancing(&mut found);
        let policy = Policy {
            balancing: balancing.clone(),
            affinity: self.affinity.as_ref().map(affinity),
            sticky_for: optional(&self.sticky_for).filter(|_| balancing == Balancing::SourceIp),
            slow_start: optional(&self.slow_start),
            subset: self.subset.map(|most| most.get()),
            prefers_zone: self.prefer_zone.unwrap_or(usual.prefers_zone),
            active_check: self
                .active_check
                .as_ref()
                .map(|check| active_check(check, &mut found)),
            agent_check: self
                .agent_check
                .as_ref()
                .and_then(|check| agent_check(check, &mut found)),
            outlier: self
                .outlier_detection
                .as_ref()
                .map(|outlier| outlier_detection(outlier, &mut found)),
            breaker: self
                .circuit_breaker
                .as_ref()
                .and_then(|breaker| circuit_breaker(breaker, &mut found)),
            panic_threshold: self
                .panic_threshold
                .map_or(usual.panic_threshold, |percent| percent.get() as u8),
            heeds_retry_after: self.heed_retry_after.unwrap_or(usual.heeds_retry_after),
        };
        let in_flight = self.in_flight(&mut found);
        (Built { policy, in_flight }, found.0)
    }

    fn balancing(&self, found: &mut Found) -> Balancing {
        if let Some(name) = &self.custom_balancing {
            let reason = "customBalancing is given instead";
            found.stray("balancing", &self.balancing, reason);
            found.stray("hashBy", &self.hash_by, reason);
            found.stray("stickyFor", &self.sticky_for, reason);
            found.stray("cost", &self.cost, reason);
            return Balancing::Custom(Arc::clone(name.get()));
        }
        let name = match (self.balancing, &self.hash_by) {
            (Some(name), _) => name,
            (None, Some(_)) => BalancingName::RingHash,
            (None, None) => BalancingName::RoundRobin,
        };
        if name != BalancingName::Cost {
            found.stray("cost", &self.cost, "it is for balancing cost");
        }
        if name != BalancingName::SourceIp {
            found.stray(
                "stickyFor",
                &self.sticky_for,
                "it is for balancing source_ip",
            );
        }
        let hash_by = self.hash_by.as_ref().map(|hash_by| hash_by.get().clone());
        if let BalancingName::RingHash | BalancingName::Maglev = name {
            let Some(on) = hash_by else {
                found.wrong("hashBy", "ring_hash and maglev need to know what to hash");
                return Balancing::default();
            };
            return match name {
                BalancingName::Maglev => Balancing::Maglev(on),
                _ => Balancing::RingHash(on),
            };
        }
        found.stray("hashBy", &hash_by, "it is for ring_hash and maglev");
        match name {
            BalancingName::SrvRfc2782 => Balancing::SrvRfc2782,
            BalancingName::SrvPriorityCycle => Balancing::SrvPriorityCycle,
            BalancingName::LeastRequest => Balancing::LeastRequest,
            BalancingName::LeastConnections => Balancing::LeastConnections,
            BalancingName::PeakEwma => Balancing::PeakEwma,
            BalancingName::LatencyRank => Balancing::LatencyRank,
            BalancingName::Random => Balancing::Random,
            BalancingName::SourceIp => Balancing::SourceIp,
            BalancingName::LeastBandwidth => Balancing::LeastBandwidth,
            BalancingName::Cost => Balancing::Cost(cost(self.cost.as_ref(), found)),
            BalancingName::RoundRobin | BalancingName::RingHash | BalancingName::Maglev => {
                Balancing::RoundRobin
            }
        }
    }

    fn in_flight(&self, found: &mut Found) -> Option<InFlightLimit> {
        let Some(requests) = self.max_in_flight else {
            let reason = "it says what happens beyond maxInFlight, which is not given";
            found.stray("maxQueue", &self.max_queue, reason);
            found.stray("queueTimeout", &self.queue_timeout, reason);
            return None;
        };
        let usual = InFlightLimit::default();
        Some(InFlightLimit {
            requests: requests.get(),
            queue: self.max_queue.map_or(usual.queue, |most| most.get()),
            wait: time(&self.queue_timeout, usual.wait),
        })
    }
}

fn cost(spec: Option<&CostSpec>, found: &mut Found) -> Cost {
    let spec = spec.cloned().unwrap_or_default();
    if let Some(name) = &spec.header {
        let reason = "it is for costs by length, and header is given";
        found.stray("cost.base", &spec.base, reason);
        found.stray("cost.perMebibyte", &spec.per_mebibyte, reason);
        return Cost::Header(Arc::clone(name.get()));
    }
    Cost::Length {
        base: spec.base.map_or(1, |base| base.get()),
        per_mebibyte: spec.per_mebibyte.map_or(1, |each| each.get()),
    }
}

fn affinity(spec: &AffinitySpec) -> Affinity {
    let usual = Affinity::new("tidegate");
    Affinity {
        cookie: spec
            .cookie
            .as_ref()
            .map_or(usual.cookie, |name| Arc::clone(name.get())),
        mode: match spec.mode {
            None | Some(AffinityModeName::Balanced) => AffinityMode::Balanced,
            Some(AffinityModeName::Persistent) => AffinityMode::Persistent,
        },
        max_age: spec.max_age.as_ref().map(|age| *age.get()),
        path: spec.path.as_ref().map(|path| Arc::clone(path.get())),
        domain: spec.domain.as_ref().map(|domain| Arc::clone(domain.get())),
        same_site: spec.same_site.map(|same_site| match same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        }),
        secure: spec.secure,
    }
}

fn active_check(spec: &ActiveCheckSpec, found: &mut Found) -> ActiveCheck {
    let usual = ActiveCheck::default();
    let kind = spec.kind.unwrap_or(match spec.path {
        Some(_) => CheckKindName::Http,
        None => CheckKindName::Tcp,
    });
    if kind != CheckKindName::Http {
        let reason = "it is for kind http";
        found.stray("activeCheck.path", &spec.path, reason);
        found.stray("activeCheck.method", &spec.method, reason);
        found.stray("activeCheck.host", &spec.host, reason);
        found.stray("activeCheck.expected", &spec.expected, reason);
    }
    if kind != CheckKindName::Grpc {
        found.stray("activeCheck.service", &spec.service, "it is for kind grpc");
    }
    if !matches!(kind, CheckKindName::Bytes | CheckKindName::Udp) {
        let reason = "it is for the kinds bytes and udp";
        found.stray("activeCheck.send", &spec.send, reason);
        found.stray("activeCheck.expect", &spec.expect, reason);
        found.stray("activeCheck.expectPattern", &spec.expect_pattern, reason);
    }
    if spec.expect.is_some() {
        let reason = "expect says already what is good";
        found.stray("activeCheck.expectPattern", &spec.expect_pattern, reason);
    }
    let bytes = |field: &Option<crate::value::Bytes>| -> Arc<[u8]> {
        field
            .as_ref()
            .map_or_else(|| [].into(), |bytes| Arc::clone(bytes.get()))
    };
    let expect = || match &spec.expect_pattern {
        Some(pattern) => Expected::Pattern(pattern.get().clone()),
        None => Expected::Start(bytes(&spec.expect)),
    };
    ActiveCheck {
        kind: match kind {
            CheckKindName::Http => CheckKind::Http {
                method: spec
                    .method
                    .as_ref()
                    .map_or_else(|| "GET".into(), |method| Arc::clone(method.get())),
                path: spec
                    .path
                    .as_ref()
                    .map_or_else(|| "/".into(), |path| Arc::clone(path.get())),
                host: spec.host.as_ref().map(|host| Arc::clone(host.get())),
                expected: spec.expected.as_ref().map_or_else(
                    || vec![GOOD],
                    |good| good.iter().map(|range| *range.get()).collect(),
                ),
            },
            CheckKindName::Tcp => CheckKind::Tcp,
            CheckKindName::Tls => CheckKind::Tls,
            CheckKindName::Grpc => CheckKind::Grpc {
                service: spec.service.as_deref().unwrap_or_default().into(),
            },
            CheckKindName::Bytes => CheckKind::Bytes {
                send: bytes(&spec.send),
                expect: expect(),
            },
            CheckKindName::Udp => CheckKind::Udp {
                send: bytes(&spec.send),
                expect: expect(),
            },
        },
        interval: time(&spec.interval, usual.interval),
        timeout: time(&spec.timeout, usual.timeout),
        unhealthy_after: spec
            .unhealthy_after
            .map_or(usual.unhealthy_after, |times| times.get()),
        healthy_after: spec
            .healthy_after
            .map_or(usual.healthy_after, |times| times.get()),
        port: spec.port.map(|port| port.get() as u16),
        starts_healthy: spec.starts_healthy.unwrap_or(usual.starts_healthy),
    }
}

fn agent_check(spec: &AgentCheckSpec, found: &mut Found) -> Option<AgentCheck> {
    let Some(port) = spec.port else {
        found.wrong("agentCheck.port", "it is needed");
        return None;
    };
    let usual = AgentCheck::new(port.get() as u16);
    Some(AgentCheck {
        send: spec.send.as_ref().map_or(usual.send, |bytes| {
            String::from_utf8_lossy(bytes.get()).into()
        }),
        interval: time(&spec.interval, usual.interval),
        timeout: time(&spec.timeout, usual.timeout),
        port: usual.port,
    })
}

fn outlier_detection(spec: &OutlierDetectionSpec, found: &mut Found) -> OutlierDetection {
    let usual = OutlierDetection::default();
    let some = |number: u32| (number > 0).then_some(number);
    let ejection = time(&spec.ejection, usual.ejection);
    let max_ejection = time(&spec.max_ejection, usual.max_ejection.max(ejection));
    if max_ejection < ejection {
        let reason = "the longest ejection is shorter than the first";
        found.wrong("outlierDetection.maxEjection", reason);
    }
    OutlierDetection {
        consecutive_errors: spec
            .consecutive_errors
            .map_or(usual.consecutive_errors, |times| some(times.get())),
        consecutive_gateway_errors: spec
            .consecutive_gateway_errors
            .map_or(usual.consecutive_gateway_errors, |times| some(times.get())),
        success_rate: spec.success_rate.map_or(usual.success_rate, |percent| {
            some(percent.get()).map(|percent| percent as u8)
        }),
        latency: optional(&spec.latency),
        unanswered: optional(&spec.unanswered).or(usual.unanswered),
        min_requests: spec
            .min_requests
            .map_or(usual.min_requests, |least| least.get()),
        interval: time(&spec.interval, usual.interval),
        ejection,
        max_ejection: max_ejection.max(ejection),
        max_ejected: spec
            .max_ejected
            .map_or(usual.max_ejected, |percent| percent.get() as u8),
    }
}

fn circuit_breaker(spec: &CircuitBreakerSpec, found: &mut Found) -> Option<CircuitBreaker> {
    if spec.latency.is_none() && spec.error_ratio.is_none() {
        let reason = "it needs latency or errorRatio to know when to open";
        found.wrong("circuitBreaker", reason);
        return None;
    }
    let usual = CircuitBreaker::default();
    Some(CircuitBreaker {
        latency: optional(&spec.latency),
        error_ratio: spec.error_ratio.map(|percent| percent.get() as u8),
        min_requests: spec
            .min_requests
            .map_or(usual.min_requests, |least| least.get()),
        window: time(&spec.window, usual.window),
        open: time(&spec.open, usual.open),
    })
}
