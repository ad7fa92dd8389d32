//! Annotations of ingress-nginx that are not acted on, and what their presence means.
//!
//! An annotation that protects something closes its routes: they answer 503, never unprotected. One that changes what is
//! served is said on the object. One that only tunes nginx is silent.

use super::{ANNOTATIONS, NGINX_PREFIX, Policy, RewriteTarget};
use crate::diagnostic::{Findings, printable};
use crate::snapshot::ObjectRef;
use std::collections::BTreeMap;
use std::fmt::Write;

/// They protect what is behind them, so without them nothing may be served.
const SECURITY: &[&str] = &[
    "auth-proxy-set-headers",
    "auth-secret",
    "auth-secret-type",
    "auth-signin",
    "auth-snippet",
    "auth-tls-match-cn",
    "auth-type",
    "auth-url",
    "configuration-snippet",
    "enable-modsecurity",
    "enable-owasp-core-rules",
    "global-rate-limit",
    "global-rate-limit-ignored-cidrs",
    "global-rate-limit-key",
    "global-rate-limit-window",
    "limit-connections",
    "modsecurity-snippet",
    "modsecurity-transaction-id",
    "satisfy",
    "server-snippet",
    "stream-snippet",
];

/// What only tunes nginx itself, and is ignored in silence.
const TUNING: &[&str] = &[
    "client-body-buffer-size",
    "client-header-buffer-size",
    "enable-access-log",
    "enable-aio-write",
    "enable-opentelemetry",
    "enable-opentracing",
    "enable-rewrite-log",
    "http2-push-preload",
    "large-client-header-buffers",
    "opentelemetry-operation-name",
    "opentelemetry-trust-incoming-span",
    "opentracing-trust-incoming-span",
    "preserve-trailing-slash",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-http-version",
    "proxy-max-temp-file-size",
    "proxy-next-upstream-tries",
    "proxy-request-buffering",
    "ssl-ciphers",
    "ssl-prefer-server-ciphers",
];

/// They change what is served; it is served without the change.
const BEHAVIOUR: &[&str] = &[
    "affinity-canary-behavior",
    "auth-always-set-cookie",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-method",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-signin-redirect-param",
    "auth-tls-error-page",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "canary-weight",
    "canary-weight-total",
    "connection-proxy-header",
    "cors-allow-credentials",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "cors-max-age",
    "custom-headers",
    "custom-http-errors",
    "default-backend",
    "disable-proxy-intercept-errors",
    "enable-cors",
    "enable-global-auth",
    "from-to-www-redirect",
    "limit-rate",
    "limit-rate-after",
    "mirror-host",
    "mirror-request-body",
    "mirror-target",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-ssl-ciphers",
    "relative-redirects",
    "server-alias",
    "service-upstream",
    "session-cookie-change-on-failure",
    "session-cookie-conditional-samesite-none",
    "upstream-hash-by-subset",
    "upstream-hash-by-subset-size",
    "use-port-in-redirects",
    "use-regex",
    "x-forwarded-prefix",
];

/// Whether a name behind the prefix is in one of the lists.
pub fn is_listed(name: &str) -> bool {
    SECURITY.contains(&name) || BEHAVIOUR.contains(&name)
}

/// Warns of names that ingress-nginx does not have either, or that are not known here: a misspelt one may have been meant to
/// protect.
pub(super) fn unknown(all: &BTreeMap<String, String>, object: &ObjectRef, findings: &mut Findings) {
    let policy_fields: Vec<_> = super::policy_fields::nginx_names().collect();
    let read = || ANNOTATIONS.iter().flat_map(|annotation| annotation.nginx);
    for key in all.keys() {
        let Some(name) = key.strip_prefix(NGINX_PREFIX) else {
            continue;
        };
        let known = || {
            read()
                .chain(&policy_fields)
                .chain(SECURITY)
                .chain(BEHAVIOUR)
                .chain(TUNING)
                .copied()
        };
        if name == "canary" || known().any(|one| one == name) {
            continue;
        }
        // As long as the longest of them, or to look at it would take long.
        let near = known().filter(|_| name.len() <= 64);
        let close = near.map(|one| (strsim::levenshtein(one, name), one)).min();
        let hint = close
            .filter(|(distance, _)| *distance <= 3)
            .map_or(String::new(), |(_, name)| {
                format!("; did you mean {NGINX_PREFIX}{name}?")
            });
        let message = format!("{} is not known and was ignored{hint}", printable(key, 128));
        findings.warning(object, &super::field(key), "UnknownAnnotation", message);
    }
}

/// Reads what these annotations mean for us.
pub(super) fn apply(
    all: &BTreeMap<String, String>,
    policy: &mut Policy,
    object: &ObjectRef,
    findings: &mut Findings,
) {
    let set = |name: &str| {
        all.get(&format!("{NGINX_PREFIX}{name}"))
            .map(|value| value.trim())
    };
    // As Go reads it (strconv.ParseBool), and with it ingress-nginx.
    let is_true =
        |name: &str| matches!(set(name), Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    let harmless = |name: &str| match set(name) {
        // Switched off in so many words.
        Some("false" | "FALSE" | "False" | "f" | "F" | "off" | "") => true,
        Some("0") => name.starts_with("limit-") || name.starts_with("enable-"),
        _ => false,
    };
    if is_true("canary") {
        policy.withdrawn = true;
        let message = "canary Ingresses are not supported; it is not served, and the Ingress it stands beside serves everything";
        findings.error(
            object,
            "metadata.annotations",
            "UnsupportedAnnotation",
            message.to_owned(),
        );
    }
    let protecting: Vec<&str> = SECURITY
        .iter()
        .copied()
        .filter(|name| set(name).is_some() && !harmless(name))
        .collect();
    if !protecting.is_empty() {
        policy.closed = Some("unsupported_security_annotation");
        let message = format!(
            "not supported, so its routes answer 503 rather than serve unprotected: {}",
            protecting.join(", ")
        );
        findings.error(
            object,
            "metadata.annotations",
            "UnsupportedSecurityAnnotation",
            message,
        );
    }
    policy.regex = is_true("use-regex") || set("rewrite-target").is_some();
    let mut ignored: Vec<&str> = BEHAVIOUR
        .iter()
        .copied()
        .filter(|name| set(name).is_some() && !harmless(name))
        .collect();
    // Beside a regular expression, or with parts of one, the target means something that cannot be done.
    let rewrite = &mut policy.filters.rewrite;
    let cannot = *rewrite == Some(RewriteTarget::Unsupported);
    if cannot || (rewrite.is_some() && is_true("use-regex")) {
        *rewrite = None;
        ignored.push("rewrite-target");
        ignored.sort_unstable();
    }
    if !ignored.is_empty() {
        let message = format!("not supported and ignored: {}", ignored.join(", "));
        findings.warning(
            object,
            "metadata.annotations",
            "UnsupportedAnnotation",
            message,
        );
    }
}

/// The lists, for the documentation.
pub(super) fn markdown() -> String {
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut out = String::from("\n## ingress-nginx annotations that are not acted on\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "Behind `{NGINX_PREFIX}`. Nothing is ignored in silence but what only tunes nginx itself.\n"
    );
    let _ = writeln!(
        out,
        "- **The route answers 503**, never unprotected: {}.",
        list(SECURITY)
    );
    let _ = writeln!(out, "- **The Ingress is not served**: `canary: \"true\"`.");
    let _ = writeln!(
        out,
        "- **Ignored, with a warning on the object**: {}.",
        list(BEHAVIOUR)
    );
    let _ = writeln!(
        out,
        "- With `use-regex` or `rewrite-target`, a path that is a regular expression is taken off with a diagnostic; plain paths are served. \
         A `rewrite-target` with `$1` or another variable, of another server, or beside `use-regex` is ignored, with a warning."
    );
    out
}
