//! Annotations of ours, and those of ingress-nginx that mean the same.
//!
//! Each annotation is one row of [`ANNOTATIONS`], which also makes its documentation. A bad value is a diagnostic and the
//! default stays; a key of ours that does not exist is a warning. Nothing an annotation says is ever copied into text that
//! is parsed again.

mod access_list;
mod attempts;
mod backend_protocol;
mod client_certificates;
mod filter_wish;
mod policy_fields;
mod rate_limit;
mod redirect;
mod request_body;
mod rewrite;
mod ssl_passthrough;
mod timeouts;
pub mod unsupported;
mod upstream_header;
mod upstream_proxy_protocol;
mod upstream_tls;
mod value;

pub(crate) use client_certificates::ClientCertificateWish;
pub(crate) use filter_wish::{FilterWish, RewriteTarget};
pub(crate) use upstream_tls::UpstreamTlsWish;

use crate::diagnostic::{Findings, printable};
use crate::settings::Settings;
use crate::snapshot::ObjectRef;
use policy::PolicySpec;
use routing_table::{Limits, ProxyVersion, RetryPolicy, Timeouts, UpstreamProtocol};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Prefix of our own annotations.
pub const PREFIX: &str = "tidegate.dev/";
/// Prefix of ingress-nginx's annotations.
pub const NGINX_PREFIX: &str = "nginx.ingress.kubernetes.io/";
/// Longest value that is looked at, in bytes.
const MAX_VALUE: usize = 4096;

/// What the annotations of an Ingress come to.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) retry: RetryPolicy,
    pub(crate) proxy_header: Option<ProxyVersion>,
    /// How endpoints are chosen and judged.
    pub(crate) endpoints: PolicySpec,
    pub(crate) filters: FilterWish,
    pub(crate) client_certificates: ClientCertificateWish,
    /// What endpoints speak, where the Ingress says so.
    pub(crate) upstream_protocol: Option<UpstreamProtocol>,
    pub(crate) upstream_tls: UpstreamTlsWish,
    /// Why its routes must answer 503: something it asks for its protection cannot be given.
    pub(crate) closed: Option<&'static str>,
    /// That goes for everything its hosts serve, whichever Ingress serves it.
    pub(crate) hosts_closed: bool,
    /// It must not serve at all: it stands beside another Ingress that does.
    pub(crate) withdrawn: bool,
    /// TLS connections for its hosts are to be passed on.
    pub(crate) passthrough: bool,
    /// Its paths may be regular expressions, which are not supported.
    pub(crate) regex: bool,
    /// The keys that were read, by the name of the annotation.
    written: BTreeMap<&'static str, String>,
}

impl Policy {
    /// Where an annotation stands, as a field: the key that was written, which may be one of ingress-nginx.
    pub(crate) fn field(&self, annotation: &str) -> String {
        match self.written.get(annotation) {
            Some(key) => field(key),
            None => field(&format!("{PREFIX}{annotation}")),
        }
    }
}

/// One annotation.
pub struct Annotation {
    /// Name behind [`PREFIX`].
    pub name: &'static str,
    /// Names behind [`NGINX_PREFIX`] that are read the same way when ours is absent.
    pub nginx: &'static [&'static str],
    /// What a value looks like.
    pub value: &'static str,
    /// What it does, with its default.
    pub doc: &'static str,
    /// A value that works.
    pub example: &'static str,
    /// What a value that cannot be read closes, where the default would protect less than what was meant.
    pub closes: Closes,
    /// Reads a value into the policy.
    apply: fn(&mut Policy, &str) -> Result<(), String>,
}

/// What answers 503 because of a value that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closes {
    /// Nothing: the default is used.
    Nothing,
    /// The routes of its Ingress.
    Routes,
    /// The hosts of its Ingress.
    Hosts,
}

/// Every annotation of ours.
pub const ANNOTATIONS: &[Annotation] = &[
    access_list::ALLOW,
    redirect::APP_ROOT,
    attempts::ATTEMPTS,
    backend_protocol::BACKEND_PROTOCOL,
    client_certificates::CLIENT_CA_SECRET,
    client_certificates::CLIENT_CERTIFICATE,
    client_certificates::CLIENT_CERTIFICATE_DEPTH,
    client_certificates::CLIENT_CERTIFICATE_TO_UPSTREAM,
    timeouts::CONNECT_TIMEOUT,
    access_list::DENY,
    timeouts::FIRST_BYTE_TIMEOUT,
    redirect::FORCE_SSL_REDIRECT,
    timeouts::IDLE_TIMEOUT,
    rate_limit::LIMIT_ALLOWLIST,
    rate_limit::LIMIT_BURST,
    rate_limit::LIMIT_BURST_MULTIPLIER,
    rate_limit::LIMIT_RPM,
    rate_limit::LIMIT_RPS,
    request_body::MAX_REQUEST_BODY,
    redirect::PERMANENT_REDIRECT,
    redirect::PERMANENT_REDIRECT_CODE,
    rewrite::REWRITE_TARGET,
    ssl_passthrough::SSL_PASSTHROUGH,
    redirect::SSL_REDIRECT,
    redirect::TEMPORAL_REDIRECT,
    redirect::TEMPORAL_REDIRECT_CODE,
    upstream_header::UPSTREAM_HEADER,
    rewrite::UPSTREAM_HOST,
    upstream_proxy_protocol::UPSTREAM_PROXY_PROTOCOL,
    upstream_tls::UPSTREAM_TLS_DEPTH,
    upstream_tls::UPSTREAM_TLS_NAME,
    upstream_tls::UPSTREAM_TLS_PROTOCOLS,
    upstream_tls::UPSTREAM_TLS_SECRET,
    upstream_tls::UPSTREAM_TLS_SERVER_NAME,
    upstream_tls::UPSTREAM_TLS_VERIFY,
];

/// Reads the annotations of an Ingress.
pub(crate) fn policy(
    annotations: Option<&BTreeMap<String, String>>,
    settings: &Settings,
    object: &ObjectRef,
    findings: &mut Findings,
) -> Policy {
    let mut policy = Policy {
        timeouts: settings.timeouts,
        limits: Limits {
            in_flight: None,
            request_body: settings.request_body,
        },
        retry: RetryPolicy::default(),
        proxy_header: None,
        endpoints: PolicySpec::default(),
        filters: FilterWish::new(settings.ssl_redirect),
        client_certificates: ClientCertificateWish::default(),
        upstream_protocol: None,
        upstream_tls: UpstreamTlsWish::default(),
        closed: None,
        hosts_closed: false,
        withdrawn: false,
        passthrough: false,
        regex: false,
        written: BTreeMap::new(),
    };
    let Some(all) = annotations else {
        return policy;
    };
    for annotation in ANNOTATIONS {
        let ours = [format!("{PREFIX}{}", annotation.name)];
        let nginx = annotation
            .nginx
            .iter()
            .map(|name| format!("{NGINX_PREFIX}{name}"));
        for key in ours.into_iter().chain(nginx) {
            let Some(value) = all.get(&key) else { continue };
            policy.written.insert(annotation.name, key.clone());
            if let Err(reason) = read(annotation, &mut policy, value) {
                let outcome = match annotation.closes {
                    Closes::Nothing => "the default is used",
                    Closes::Routes => "its routes answer 503",
                    Closes::Hosts => "its hosts answer 503",
                };
                let message = format!("{reason}; {outcome}");
                if annotation.closes != Closes::Nothing {
                    policy.closed = Some("unusable_annotation");
                    policy.hosts_closed |= annotation.closes == Closes::Hosts;
                }
                findings.error(object, &field(&key), "InvalidAnnotation", message);
            }
            if key.starts_with(PREFIX) {
                break;
            }
        }
    }
    let ours = ANNOTATIONS.iter().map(|annotation| annotation.name);
    unknown(all, ours.chain(policy_fields::names()), object, findings);
    policy.endpoints = policy_fields::read(all, object, findings);
    policy_fields::contradictions(&policy.endpoints, object, findings);
    unsupported::unknown(all, object, findings);
    unsupported::apply(all, &mut policy, object, findings);
    check_passthrough(&mut policy, settings, object, findings);
    policy
}

/// How the endpoints of a Service are chosen and judged, as its annotations say it.
pub(crate) fn of_service(
    annotations: Option<&BTreeMap<String, String>>,
    object: &ObjectRef,
    findings: &mut Findings,
) -> PolicySpec {
    let Some(all) = annotations else {
        return PolicySpec::default();
    };
    let ours = [crate::dns::DISCOVERY].into_iter();
    unknown(all, ours.chain(policy_fields::names()), object, findings);
    let spec = policy_fields::read(all, object, findings);
    policy_fields::contradictions(&spec, object, findings);
    spec
}

/// Warns of annotations with our prefix that there are not.
fn unknown(
    all: &BTreeMap<String, String>,
    known: impl Iterator<Item = &'static str>,
    object: &ObjectRef,
    findings: &mut Findings,
) {
    let mut unknown = all
        .keys()
        .filter_map(|key| Some((key, key.strip_prefix(PREFIX)?)))
        .peekable();
    if unknown.peek().is_none() {
        return;
    }
    let known: Vec<_> = known.collect();
    for (key, name) in unknown.filter(|(_, name)| !known.contains(name)) {
        // Nobody mistypes one that is much longer, and to look at it would take long.
        let close = known
            .iter()
            .filter(|_| name.len() <= 64)
            .map(|known| (strsim::levenshtein(known, name), known))
            .min();
        let hint = close
            .filter(|(distance, _)| *distance <= 3)
            .map_or(String::new(), |(_, name)| {
                format!("; did you mean {PREFIX}{name}?")
            });
        let message = format!("{} is no annotation of Tidegate{hint}", printable(key, 128));
        findings.warning(object, &field(key), "UnknownAnnotation", message);
    }
}

/// TLS is passed on only where the operator lets it be.
fn check_passthrough(
    policy: &mut Policy,
    settings: &Settings,
    object: &ObjectRef,
    findings: &mut Findings,
) {
    if policy.passthrough && !settings.ssl_passthrough {
        policy.closed = policy.closed.or(Some("ssl_passthrough"));
        let message = "TLS is passed on only with --enable-ssl-passthrough; its routes answer 503";
        findings.error(
            object,
            "metadata.annotations",
            "PassthroughDisabled",
            message.to_owned(),
        );
    }
}

fn read(annotation: &Annotation, policy: &mut Policy, value: &str) -> Result<(), String> {
    bounded(value)?;
    (annotation.apply)(policy, value.trim()).map_err(|reason| {
        format!(
            "{:?} is not {}: {reason}",
            printable(value, 64),
            annotation.value
        )
    })
}

/// Refuses a value that is too long to be looked at.
fn bounded(value: &str) -> Result<(), String> {
    match value.len() {
        0..=MAX_VALUE => Ok(()),
        bytes => Err(format!(
            "the value has {bytes} bytes, {MAX_VALUE} are the most"
        )),
    }
}

fn field(key: &str) -> String {
    format!("metadata.annotations[{}]", printable(key, 128))
}

/// The documentation of all annotations, as `docs/annotations.md` has it.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Annotations\n\nGenerated by `cargo xtask codegen` from the code that reads them; do not edit.\n\n\
         On an Ingress. A bad value is reported on the object and the default stays, unless that would protect less: where the \
         table says so, its routes, or all that its hosts serve, answer 503. What is `true` or `false` may be `1`, `t`, `on` or `0`, \
         `f`, `off` too, in upper or lower case.\n\n\
         | Annotation | Value | What it does | Example | Read from ingress-nginx |\n|---|---|---|---|---|\n",
    );
    let quoted = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    for annotation in ANNOTATIONS {
        let closes = match annotation.closes {
            Closes::Nothing => "",
            Closes::Routes => " A bad value closes the routes.",
            Closes::Hosts => " A bad value closes the hosts.",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{PREFIX}{}` | {} | {}{closes} | `{}` | {} |",
            annotation.name,
            annotation.value,
            annotation.doc,
            annotation.example,
            quoted(annotation.nginx)
        );
    }
    out.push_str(
        "\n## How endpoints are chosen and judged\n\nOn a Service, for all that is sent to it, or on an Ingress, for what is sent \
         there by it. What the Service says goes before what the Ingress says, and a [`BackendPolicy`](backend-policy.md), which \
         has the same fields, before both.\n\n\
         | Annotation | Value | What it does | Example | Read from ingress-nginx, on an Ingress |\n|---|---|---|---|---|\n",
    );
    for [name, value, doc, example, nginx] in policy_fields::rows() {
        let (value, doc) = (value.replace('|', "\\|"), doc.replace('|', "\\|"));
        let _ = writeln!(
            out,
            "| `{PREFIX}{name}` | {value} | {doc} | `{example}` | {nginx} |"
        );
    }
    out.push_str(&unsupported::markdown());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_examples_are_read() {
        let mut names: Vec<_> = ANNOTATIONS
            .iter()
            .map(|annotation| annotation.name)
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ANNOTATIONS.len());
        for annotation in ANNOTATIONS {
            let object = ObjectRef {
                kind: crate::Kind::Ingress,
                key: crate::ObjectKey::new("a", "b"),
                uid: String::new(),
            };
            let all = BTreeMap::from([(
                format!("{PREFIX}{}", annotation.name),
                annotation.example.to_owned(),
            )]);
            let mut findings = Findings::default();
            policy(Some(&all), &Settings::default(), &object, &mut findings);
            assert_eq!(findings.finish(), [], "{}", annotation.name);
        }
    }

    #[test]
    fn nothing_supported_is_listed_as_unsupported() {
        let nginx = ANNOTATIONS.iter().flat_map(|annotation| annotation.nginx);
        for name in nginx.copied().chain(policy_fields::nginx_names()) {
            assert!(!unsupported::is_listed(name), "{name}");
        }
    }
}
