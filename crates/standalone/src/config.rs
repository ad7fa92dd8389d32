//! The keys of the file. Everything about them that people need to know stands here once: the JSON Schema and the errors
//! come from these types. What goes together and what does not is for `build` to say.

mod filters;
mod given;

pub use filters::{HeaderChangesConfig, RateLimitConfig, RedirectConfig, RewriteConfig};
pub use given::Listed;

use policy::PolicySpec;
use policy::value::Span;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A configuration of `tidegate serve --config FILE`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where connections are accepted. At least one.
    pub listeners: Vec<ListenerConfig>,
    /// Which requests go where. The order breaks ties only: exact paths come first, then longer paths, then routes with a
    /// method, with more headers, with more query parameters, with more cookies, for some clients only.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// Groups of endpoints by name. A name is made of letters, digits, `-`, `_` and `.`.
    #[serde(default)]
    pub backends: BTreeMap<String, BackendConfig>,
    /// Suffixes of names that are looked up as others: with `staging.service: default.svc.cluster.local`, `api.staging.service`
    /// is `api.default.svc.cluster.local` for the DNS. The longest that fits counts, by whole labels.
    #[serde(default)]
    pub name_suffixes: BTreeMap<String, String>,
}

/// An address and port, and what is spoken there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, for `routes[].listeners`, logs and metrics. Default: protocol and port, such as `http-8080`.
    pub name: Option<String>,
    /// IP address. Default `127.0.0.1`: only programs on this machine can connect; `0.0.0.0` or `::` for everybody.
    pub address: Option<String>,
    /// Port, 1 to 65535.
    pub port: u16,
    /// What is spoken. Default `http`.
    #[serde(default)]
    pub protocol: Protocol,
    /// For `https`: certificates by server name.
    #[serde(default)]
    pub tls: Vec<CertificateConfig>,
    /// For `tls-passthrough` and `https`: server names whose connections are passed on as they are.
    #[serde(default)]
    pub passthrough: Vec<PassthroughConfig>,
    /// For `tcp`: where connections go.
    pub backend: Option<String>,
    /// For `tcp` and `tls-passthrough`: close a connection after this long without a byte. Default `10m`.
    pub idle_timeout: Option<Span>,
    /// For `tcp`, and for all names of `passthrough`: networks or addresses of clients whose connections are closed, whatever
    /// `allow` says.
    #[serde(default)]
    pub deny: Listed<String>,
    /// For `tcp`, and for all names of `passthrough`: networks or addresses of clients that are let in; connections of all others are
    /// closed. Default: everybody.
    #[serde(default)]
    pub allow: Listed<String>,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "a doc on a variant would make its schema a oneOf"
)]
pub enum Protocol {
    #[default]
    Http,
    Https,
    Tcp,
    TlsPassthrough,
}

/// A certificate and the server names it is for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateConfig {
    /// Server names, `*.` for one label. Default: for clients that ask for a name that no other certificate is for.
    #[serde(default)]
    pub hosts: Listed<String>,
    /// PEM file of the chain, leaf first. Relative to the configuration file.
    pub certificate: String,
    /// PEM file of the private key. Relative to the configuration file.
    pub key: String,
}

/// Server names whose TLS the backend does itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PassthroughConfig {
    /// Server names, `*.` for one label. At least one.
    pub hosts: Vec<String>,
    /// Where their connections go.
    pub backend: String,
}

/// Which requests go where.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name, for logs and `tidegate test`. Default: its place, such as `routes[0]`.
    pub name: Option<String>,
    /// Names of the listeners it belongs to. Default: all that speak `http` or `https`.
    #[serde(default)]
    pub listeners: Listed<String>,
    /// Hosts, `*.` for one label. Default: every host that no other route names.
    #[serde(default)]
    pub hosts: Listed<String>,
    /// Its paths. Default: all.
    #[serde(default, deserialize_with = "given::path")]
    #[schemars(with = "PathConfig")]
    pub path: Option<PathConfig>,
    /// Its method, such as `POST`. Default: any.
    #[serde(default, deserialize_with = "given::value")]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields that a request must have.
    #[serde(default)]
    pub headers: Listed<FieldConfig>,
    /// Query parameters that a request must have.
    #[serde(default)]
    pub query: Listed<FieldConfig>,
    /// Cookies that a request must have.
    #[serde(default)]
    pub cookies: Listed<FieldConfig>,
    /// Networks or addresses, in one of which the client must be, as trusted proxies name it. Default: it may be anywhere. Who
    /// is elsewhere gets another route, if there is one; `allow` refuses instead.
    #[serde(default)]
    pub clients: Listed<String>,
    /// The first segment of the path names the backend: `/user/x`, `/user/` and `/user` go to the backend `user`, everything
    /// else to `backend`, or is answered 404 without one. Default false.
    #[serde(default)]
    pub first_path_segment: bool,
    /// Where requests go. Needed but for `respond`, `firstPathSegment` and `redirect` with `url`.
    pub backend: Option<String>,
    /// Answer with this status (200 to 599) instead.
    #[serde(default, deserialize_with = "given::status")]
    #[schemars(range(min = 200, max = 599), skip_serializing_if = "Option::is_none")]
    pub respond: Option<u16>,
    /// When to give up waiting.
    pub timeouts: Option<TimeoutsConfig>,
    /// When to try another endpoint.
    pub retries: Option<RetriesConfig>,
    /// Largest request body in bytes, 0 for no limit; a larger one is answered 413. Default: what --max-request-body says.
    pub max_request_body: Option<u64>,
    /// Networks or addresses of clients that are answered 403, whatever `allow` says.
    #[serde(default)]
    pub deny: Listed<String>,
    /// Networks or addresses of clients that are served; all others are answered 403. Default: everybody.
    #[serde(default)]
    pub allow: Listed<String>,
    /// How often one client address may ask (IPv6: one /64).
    #[serde(default, deserialize_with = "given::value")]
    #[schemars(with = "RateLimitConfig")]
    pub rate_limit: Option<RateLimitConfig>,
    /// Where clients are sent.
    pub redirect: Option<RedirectConfig>,
    /// What the backend is asked for instead.
    pub rewrite: Option<RewriteConfig>,
    /// Changes of the fields that the backend gets.
    pub request_headers: Option<HeaderChangesConfig>,
    /// Changes of the fields that the client gets with an answer of the backend, or of `respond`.
    pub response_headers: Option<HeaderChangesConfig>,
    /// Name of a field that tells clients which endpoint answered. It shows the inside to whoever asks. Default: none.
    pub upstream_header: Option<String>,
}

/// Paths of a route, in exactly one way.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathConfig {
    /// This path only.
    pub exact: Option<String>,
    /// This path and what is below it, by whole segments.
    pub prefix: Option<String>,
    /// Every path that starts with these characters.
    pub starts_with: Option<String>,
}

/// A header field, query parameter or cookie, and what it must be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldConfig {
    /// Its name; of a header in any case.
    pub name: String,
    /// Its value. Either this or `present`.
    pub value: Option<String>,
    /// `true`: it may have any value.
    #[serde(default)]
    pub present: bool,
}

/// When to give up waiting.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeoutsConfig {
    /// To connect to one endpoint. Default `2s`.
    pub connect: Option<Span>,
    /// From the end of the request to the first byte of the answer. Default `60s`.
    pub first_byte: Option<Span>,
    /// Between two pieces of a body. Default `60s`.
    pub idle: Option<Span>,
}

/// When to try another endpoint.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetriesConfig {
    /// Endpoints that are tried in all, 1 to 100. Default 3.
    pub attempts: Option<u32>,
    /// How often one that cannot be connected to is tried again before another is, up to 100. Default 0.
    pub same_endpoint: Option<u32>,
    /// Before it is tried again. Default `10ms`.
    pub pause: Option<Span>,
}

/// A group of endpoints, found by `static`, `dns` and `srv`, or by several of them together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendConfig {
    /// Lines `IP:port weight=N priority=N max_connections=N zone=NAME sni=NAME`. Defaults: 1, 0, no limit, nowhere, `tls.serverName`.
    /// At least one.
    #[serde(rename = "static")]
    pub fixed: Option<Vec<String>>,
    /// `name:port`: every address that the DNS has for the name.
    pub dns: Option<String>,
    /// Name of SRV records, such as `_http._tcp.api.example.com`.
    pub srv: Option<String>,
    /// `IP:port` of the name server to ask, for `dns` and `srv`. Default: that of --dns-resolver, or of the system.
    pub resolver: Option<String>,
    /// What is spoken to endpoints. Default `http`.
    #[serde(default)]
    pub protocol: BackendProtocol,
    /// Speak it through TLS. Default: no.
    #[serde(default, deserialize_with = "given::value")]
    #[schemars(with = "BackendTlsConfig")]
    pub tls: Option<BackendTlsConfig>,
    /// How endpoints are chosen and judged. Default: in turn, by weight.
    pub policy: Option<PolicySpec>,
}

/// What is spoken to endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "a doc on a variant would make its schema a oneOf"
)]
pub enum BackendProtocol {
    #[default]
    Http,
    H2c,
}

/// TLS to endpoints.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTlsConfig {
    /// The name that endpoints must prove to have, and that is sent to them. Default: that of `dns`. Needed where there is none, but
    /// for `static` lines that all have `sni`.
    pub server_name: Option<String>,
    /// PEM file of the authorities to believe. Default: those of the system. Relative to the configuration file.
    #[serde(default, deserialize_with = "given::value")]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether endpoints must prove who they are. Default true.
    pub verify: Option<bool>,
}

/// The JSON Schema of the file.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Config);
    // A schema is JSON already.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    format!("{text}\n")
}
