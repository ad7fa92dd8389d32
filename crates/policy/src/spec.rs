//! The fields of a policy, as they are written. What a field means, its range and its default stand here once.

use crate::value::{
    Attribute, Bytes, CookieAge, FieldName, HashBy, HostField, HttpPath, Pattern, Span, Statuses,
    Token,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares a group of fields that may each be left out.
macro_rules! spec {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } groups { $($(#[$group_doc:meta])* $group:ident: $group_type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
            $($(#[$group_doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $group: Option<$group_type>,)*
        }

        impl $name {
            /// This, and where it says nothing, what is `below` it.
            #[must_use]
            pub fn over(self, below: &Self) -> Self {
                Self {
                    $($field: self.$field.or_else(|| below.$field.clone()),)*
                    $($group: match (self.$group, &below.$group) {
                        (Some(above), Some(below)) => Some(above.over(below)),
                        (above, below) => above.or_else(|| below.clone()),
                    },)*
                }
            }
        }
    };
}

/// How the endpoint of a request is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "a doc on a variant would make its schema a oneOf; routing_table::policy has them"
)]
pub enum BalancingName {
    RoundRobin,
    #[serde(rename = "srv_rfc2782")]
    SrvRfc2782,
    SrvPriorityCycle,
    LeastRequest,
    LeastConnections,
    PeakEwma,
    LatencyRank,
    Random,
    RingHash,
    Maglev,
    SourceIp,
    LeastBandwidth,
    Cost,
}

/// What happens to clients that stay when there are more endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "a doc on a variant would make its schema a oneOf; routing_table::policy has them"
)]
pub enum AffinityModeName {
    Balanced,
    Persistent,
}

/// `SameSite` of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "a doc on a variant would make its schema a oneOf; routing_table::policy has them"
)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "a doc on a variant would make its schema a oneOf; routing_table::policy has them"
)]
pub enum CheckKindName {
    Http,
    Tcp,
    Tls,
    Grpc,
    Bytes,
    Udp,
}

spec! {
    /// How the endpoints of a Service or backend are chosen and judged.
    PolicySpec {
        /// How the endpoint of a request is chosen. Default `round_robin`, and `ring_hash` where `hashBy` is given.
        #[schemars(example = &"peak_ewma")]
        balancing: BalancingName,
        /// Requests with the same value go to the same endpoint, those without it to any: `client-ip`, `path`, `path-and-query`, `header:NAME`, `cookie:NAME` or `query:NAME`. For `ring_hash` and `maglev`, which need it.
        #[schemars(example = &"header:x-user")]
        hash_by: HashBy,
        /// Instead of `balancing`: an order that this build has beside the built-in ones, by its name. The program as it is released has none.
        #[schemars(example = &"first_of_name")]
        custom_balancing: Token,
        /// With `source_ip`: a client stays at its endpoint, whatever others come, until it has been silent for this long. Default: it may move when endpoints come.
        #[schemars(example = &"30m")]
        sticky_for: Span,
        /// Over how long a new endpoint, or one that has come back, rises from a tenth of its share to all of it. Default: at once.
        #[schemars(example = &"30s")]
        slow_start: Span,
        /// Use no more endpoints than so many, chosen by this replica. Default: all.
        #[schemars(example = 20)]
        subset: Ranged<1, 65_535>,
        /// Endpoints of the zone that `--zone` names get requests before others of their priority, which get some when those are full, or when less than a third of those is available. Default false.
        #[schemars(example = true)]
        prefer_zone: bool,
        /// When less than this share of the endpoints is available, in percent, health is ignored. Default 0: only when none is left.
        #[schemars(example = 30)]
        panic_threshold: Ranged<0, 100>,
        /// Whether an endpoint that answers 429 or 503 with `Retry-After` gets a tenth of its share until then. Default true.
        #[schemars(example = false)]
        heed_retry_after: bool,
        /// Most requests in progress at one endpoint, from one replica; more wait. Default: no limit.
        #[schemars(example = 100)]
        max_in_flight: Ranged<1, 1_000_000>,
        /// Most requests that wait because of `maxInFlight`; more are answered 503. Default 100.
        #[schemars(example = 500)]
        max_queue: Ranged<1, 1_000_000>,
        /// Longest wait because of `maxInFlight`. Default 1s.
        #[schemars(example = &"250ms")]
        queue_timeout: Span,
    } groups {
        /// What a request costs, for `balancing: cost`.
        cost: CostSpec,
        /// A client stays at its endpoint by a cookie.
        affinity: AffinitySpec,
        /// Endpoints are probed.
        active_check: ActiveCheckSpec,
        /// Endpoints are asked how they are, by HAProxy's agent-check protocol.
        agent_check: AgentCheckSpec,
        /// Endpoints are judged by the requests they get, and ejected for a while.
        outlier_detection: OutlierDetectionSpec,
        /// An endpoint that is about to fail gets nothing for a while, then one request tries it.
        circuit_breaker: CircuitBreakerSpec,
    }
}

spec! {
    /// What a request costs while it is in progress.
    CostSpec {
        /// Of every request. Default 1.
        #[schemars(example = 1)]
        base: Ranged<1, 1_000_000>,
        /// Of each MiB of its declared body. Default 1.
        #[schemars(example = 10)]
        per_mebibyte: Ranged<0, 1_000_000>,
        /// The number in this field of the request instead; 1 where there is none.
        #[schemars(example = &"x-cost")]
        header: FieldName,
    } groups {}
}

spec! {
    /// A client stays at its endpoint by a cookie.
    AffinitySpec {
        /// Name of the cookie. Default `tidegate`.
        #[schemars(example = &"route")]
        cookie: Token,
        /// Whether new endpoints take over some of the clients (`balanced`) or none (`persistent`). Default `balanced`.
        #[schemars(example = &"persistent")]
        mode: AffinityModeName,
        /// How long the client keeps it. Default: until it is closed.
        #[schemars(example = &"7d")]
        max_age: CookieAge,
        /// `Path` of the cookie. Default: the path of the route.
        #[schemars(example = &"/")]
        path: Attribute,
        /// `Domain` of the cookie. Default: none.
        #[schemars(example = &"shop.example.com")]
        domain: Attribute,
        /// `SameSite` of the cookie. Default: none given.
        #[schemars(example = &"Lax")]
        same_site: SameSite,
        /// Whether the cookie is for HTTPS only. Default: where it was set over HTTPS.
        #[schemars(example = true)]
        secure: bool,
    } groups {}
}

spec! {
    /// Endpoints are probed, from the moment they are known.
    ActiveCheckSpec {
        /// What is asked. Default `http` where `path` is given, else `tcp`.
        #[schemars(example = &"http")]
        kind: CheckKindName,
        /// Path of `http`. Default `/`.
        #[schemars(example = &"/healthz")]
        path: HttpPath,
        /// Method of `http`. Default `GET`.
        #[schemars(example = &"HEAD")]
        method: Token,
        /// `Host` of `http`. Default: the endpoint's address.
        #[schemars(example = &"api.internal")]
        host: HostField,
        /// Good statuses of `http`, each a number or a range. Default `200-399`.
        #[schemars(length(min = 1, max = 16), example = two_statuses())]
        expected: Vec<Statuses>,
        /// Service that `grpc` asks about. Default: the server as a whole.
        #[schemars(length(max = 256), example = &"shop.Cart")]
        service: String,
        /// What `bytes` and `udp` send; `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH` stand for other bytes. Default: nothing.
        #[schemars(example = &"PING\\r\\n")]
        send: Bytes,
        /// What the answer to `bytes` or `udp` begins with. Default: nothing, so that being connected is enough, or by `udp` any answer.
        #[schemars(example = &"+PONG")]
        expect: Bytes,
        /// Instead of `expect`: a regular expression that fits somewhere in the first 4 KiB of the answer.
        #[schemars(example = &"role:(master|slave)")]
        expect_pattern: Pattern,
        /// Between two probes of one endpoint, give or take a tenth. Default 5s.
        #[schemars(example = &"2s")]
        interval: Span,
        /// For one probe, connecting included. Default 2s.
        #[schemars(example = &"1s")]
        timeout: Span,
        /// Failures in a row that take an endpoint out. Default 3.
        #[schemars(example = 2)]
        unhealthy_after: Ranged<1, 1000>,
        /// Successes in a row that bring it back. Default 2.
        #[schemars(example = 1)]
        healthy_after: Ranged<1, 1000>,
        /// Probe this port instead of the endpoint's own.
        #[schemars(example = 9090)]
        port: Ranged<1, 65_535>,
        /// Whether a new endpoint gets requests before its first probe has ended. Default true.
        #[schemars(example = false)]
        starts_healthy: bool,
    } groups {}
}

spec! {
    /// Each endpoint's agent is asked for a line: `50%`, `drain`, `up`, `down`, `maint`, `maxconn:N`.
    AgentCheckSpec {
        /// Port of the agent, at the endpoint's address. Needed.
        #[schemars(example = 9777)]
        port: Ranged<1, 65_535>,
        /// What it is sent; `\n` and the like stand for other bytes. Default: nothing.
        #[schemars(example = &"web\\n")]
        send: Bytes,
        /// Between two questions. Default 5s.
        #[schemars(example = &"2s")]
        interval: Span,
        /// For its answer. Default 2s.
        #[schemars(example = &"1s")]
        timeout: Span,
    } groups {}
}

spec! {
    /// Endpoints are judged by the requests they get.
    OutlierDetectionSpec {
        /// Errors in a row (5xx, or no answer at all) that eject an endpoint; 0: not judged by it. Default 5.
        #[schemars(example = 3)]
        consecutive_errors: Ranged<0, 10_000>,
        /// Gateway errors in a row (502, 503, 504, or no answer) that eject it; 0: not judged by it. Default 0.
        #[schemars(example = 3)]
        consecutive_gateway_errors: Ranged<0, 10_000>,
        /// Least share of requests without error over an interval, in percent; 0: not judged by it. Default 0.
        #[schemars(example = 90)]
        success_rate: Ranged<0, 100>,
        /// Longest average time to an answer over an interval. Default: not judged by it.
        #[schemars(example = &"2s")]
        latency: Span,
        /// Several requests wait and none was answered for this long, while other endpoints answer: it is ejected before any
        /// timeout. `24h` turns it off. Default 2s.
        #[schemars(example = &"5s")]
        unanswered: Span,
        /// Requests in an interval below which rates are not judged. Default 20.
        #[schemars(example = 50)]
        min_requests: Ranged<1, 1_000_000>,
        /// How often rates are judged. Default 10s.
        #[schemars(example = &"5s")]
        interval: Span,
        /// For how long it is ejected the first time; the n-th time in a row n times as long. Default 30s.
        #[schemars(example = &"10s")]
        ejection: Span,
        /// The longest ejection. Default 300s.
        #[schemars(example = &"2m")]
        max_ejection: Span,
        /// Most endpoints ejected at once, in percent of all, but always one. Default 50.
        #[schemars(example = 30)]
        max_ejected: Ranged<0, 100>,
    } groups {}
}

spec! {
    /// An endpoint gets nothing while its breaker is open; then one request tries it.
    CircuitBreakerSpec {
        /// Opens when the average time to an answer in the window is longer. Default: not judged by it.
        #[schemars(example = &"500ms")]
        latency: Span,
        /// Opens when this share of the answers in the window are errors (5xx or none), in percent. Default: not judged by it.
        #[schemars(example = 50)]
        error_ratio: Ranged<1, 100>,
        /// Requests in the window below which it stays closed. Default 10.
        #[schemars(example = 20)]
        min_requests: Ranged<1, 1_000_000>,
        /// What is looked at: the last so long. Default 10s.
        #[schemars(example = &"5s")]
        window: Span,
        /// How long it stays open before one request tries. Default 5s.
        #[schemars(example = &"10s")]
        open: Span,
    } groups {}
}

/// A whole number in a range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ranged<const LEAST: u32, const MOST: u32>(u32);

impl<const LEAST: u32, const MOST: u32> Ranged<LEAST, MOST> {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<const LEAST: u32, const MOST: u32> TryFrom<u32> for Ranged<LEAST, MOST> {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match (LEAST..=MOST).contains(&number) {
            true => Ok(Self(number)),
            false => Err(format!("{number} is not from {LEAST} to {MOST}")),
        }
    }
}

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Ranged<LEAST, MOST> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(from)?;
        let error = || serde::de::Error::custom(format!("{number} is not from {LEAST} to {MOST}"));
        let number = u32::try_from(number).map_err(|_| error())?;
        Self::try_from(number).map_err(|_| error())
    }
}

impl<const LEAST: u32, const MOST: u32> JsonSchema for Ranged<LEAST, MOST> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("From{LEAST}To{MOST}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

/// The example of `expected`.
fn two_statuses() -> [&'static str; 2] {
    ["200", "204"]
}
