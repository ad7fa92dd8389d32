//! The keys of what is done with requests of a route and their answers besides sending them to a backend.

use policy::value::Span;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How often one client address may ask (IPv6: one /64).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests in each `per`, 1 to 1000000; more are answered 429.
    pub requests: u32,
    /// The time they are counted in. Default `1s`.
    pub per: Option<Span>,
    /// Requests that a client which has rested may make at once, at least 1. Default: `requests`.
    pub burst: Option<u32>,
    /// Networks or addresses that are not limited.
    #[serde(default)]
    pub except: Vec<String>,
}

/// What the backend is asked for instead. At most one of `path`, `prefix` and `base`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RewriteConfig {
    /// This path, whatever was asked for.
    pub path: Option<String>,
    /// This instead of what the route's `path` matched (`firstPathSegment`: the segment).
    pub prefix: Option<String>,
    /// This in front of the path that was asked for.
    pub base: Option<String>,
    /// This `Host`, with or without a port. `X-Forwarded-Host` says what was asked for.
    pub host: Option<String>,
}

/// Where clients are sent, in exactly one way.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedirectConfig {
    /// `true`: the same by https, for requests that did not come by it; challenges of ACME are served.
    #[serde(default)]
    pub https: bool,
    /// The port of `https`. Default 443.
    pub port: Option<u16>,
    /// An absolute URL, or a path of the same host. The route needs no backend then.
    pub url: Option<String>,
    /// Put path and query behind `url`, which must end with its host. Default false.
    #[serde(default)]
    pub with_path: bool,
    /// This path, for requests of `/`.
    pub root: Option<String>,
    /// 301, 302, 303, 307 or 308. Default 308 for `https`, else 302.
    pub status: Option<u16>,
}

/// Fields that are changed; values are as they stand here.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderChangesConfig {
    /// Fields by name that there are exactly once then.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Names of fields that go.
    #[serde(default)]
    pub remove: Vec<String>,
}
