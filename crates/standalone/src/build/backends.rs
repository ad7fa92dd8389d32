//! Backends become clusters, with endpoints or with the question that the DNS is asked for them.

use super::{Context, Failure, NAMESPACE};
use crate::certificate;
use crate::config::{BackendConfig, BackendProtocol, BackendTlsConfig};
use crate::dns_name::{self, absolute};
use crate::endpoint_line::{self, Line};
use crate::problem::{Step, Wrong, printable, steps, unknown};
use routing_table::{
    Authorities, Cluster, ClusterId, ClusterIndex, ClusterSet, Discovery, DnsQuery, DnsSource,
    Endpoint, EndpointSets, InFlightLimit, Merged, Policy, TlsVersions, UpstreamProtocol,
    UpstreamTls, UpstreamVerify,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A backend that routes may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pub(super) cluster: ClusterIndex,
    /// For every route to it.
    pub(super) in_flight: Option<InFlightLimit>,
}

#[derive(Debug, Default)]
pub(super) struct Backends {
    pub(super) clusters: ClusterSet,
    pub(super) endpoints: EndpointSets,
    pub(super) by_name: BTreeMap<String, Backend>,
}

impl Backends {
    /// The backend of a name that stands at a path.
    pub(super) fn find(&self, name: &str, at: &[Step]) -> Result<Backend, Wrong> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            Wrong::at(at, unknown("backend", name, &known))
        })
    }
}

pub(super) fn build(context: &Context<'_>, files: &mut Vec<PathBuf>) -> Result<Backends, Failure> {
    let mut out = Backends::default();
    for (suffix, instead) in &context.config.name_suffixes {
        for name in [suffix, instead] {
            absolute(name)
                .map_err(|message| Wrong::at(&steps!["nameSuffixes", suffix], message))?;
        }
    }
    for (name, config) in &context.config.backends {
        let at = steps!["backends", name];
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 63 || !name.chars().all(fine) || name.starts_with('.') {
            let message = "a name is made of 1 to 63 letters, digits, '-', '_' and '.', the last not in front";
            return Err(Wrong::at(&at, message).into());
        }
        let id = ClusterId::new(NAMESPACE, name, 0);
        let fixed = match &config.fixed {
            Some(lines) => Some(static_lines(lines, config, &at)?),
            None => None,
        };
        let tls = match &config.tls {
            None => None,
            Some(tls) => {
                let lines = fixed.as_deref().unwrap_or_default();
                Some(Arc::new(upstream_tls(
                    context, tls, config, lines, &at, files,
                )?))
            }
        };
        let (discovery, endpoints) = endpoints(context, config, fixed, &at)?;
        if let Some(endpoints) = endpoints {
            out.endpoints.insert(id.clone(), endpoints);
        }
        let (policy, in_flight) = policy(config, &at)?;
        let cluster = out.clusters.add(Cluster {
            id,
            protocol: match config.protocol {
                BackendProtocol::Http => UpstreamProtocol::Http1,
                BackendProtocol::H2c => UpstreamProtocol::Http2,
            },
            tls,
            discovery,
            policy: Arc::new(policy),
            proxy_header: None,
        });
        out.by_name
            .insert(name.clone(), Backend { cluster, in_flight });
    }
    Ok(out)
}

/// Where endpoints come from, and those that are known already.
fn endpoints(
    context: &Context<'_>,
    config: &BackendConfig,
    fixed: Option<Vec<Line>>,
    at: &[Step],
) -> Result<(Discovery, Option<Vec<Endpoint>>), Wrong> {
    let below = |key: &str| [at, &steps![key]].concat();
    let fixed: Option<Vec<Endpoint>> =
        fixed.map(|lines| lines.into_iter().map(|line| line.endpoint).collect());
    let mut queries = Vec::new();
    if let Some(name) = &config.dns {
        let query = address_query(name.trim());
        queries.push(query.map_err(|message| Wrong::at(&below("dns"), message))?);
    }
    if let Some(name) = &config.srv {
        let query = srv_query(name.trim());
        queries.push(query.map_err(|message| Wrong::at(&below("srv"), message))?);
    }
    if queries.is_empty() {
        let Some(fixed) = fixed else {
            let message = "endpoints are missing: \"static\", \"dns\" or \"srv\"";
            return Err(Wrong::at(at, message));
        };
        if config.resolver.is_some() {
            let message = "a name server is for \"dns\" and \"srv\" only";
            return Err(Wrong::at(&below("resolver"), message));
        }
        return Ok((Discovery::Static, Some(fixed)));
    }
    let resolvers = match &config.resolver {
        None => context.defaults.resolvers.clone(),
        Some(text) => {
            let server = endpoint_line::address(text.trim());
            vec![server.map_err(|message| Wrong::at(&below("resolver"), message))?]
        }
    };
    let suffixes = &context.config.name_suffixes;
    let source = |query| {
        Arc::new(DnsSource {
            query: match query {
                DnsQuery::Address(name, port) => DnsQuery::Address(looked_up(name, suffixes), port),
                DnsQuery::Srv(name) => DnsQuery::Srv(looked_up(name, suffixes)),
            },
            resolvers: resolvers.clone(),
            // The operator wrote the name, and endpoints on this machine are what a sidecar is for.
            any_address: true,
        })
    };
    let mut dns: Vec<_> = queries.into_iter().map(source).collect();
    let discovery = match (&fixed, dns.len()) {
        (None, 1) => Discovery::Dns(dns.remove(0)),
        _ => Discovery::Merged(Arc::new(Merged {
            fixed: fixed.clone().unwrap_or_default(),
            dns,
        })),
    };
    Ok((discovery, fixed))
}

/// The lines of `static`, each address once.
fn static_lines(lines: &[String], config: &BackendConfig, at: &[Step]) -> Result<Vec<Line>, Wrong> {
    let at = [at, &steps!["static"]].concat();
    if lines.is_empty() {
        return Err(Wrong::at(
            &at,
            "the list is empty: a backend needs an endpoint",
        ));
    }
    let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut read = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let at = [&at[..], &steps![index]].concat();
        let line = endpoint_line::parse(line).map_err(|message| Wrong::at(&at, message))?;
        let addr = line.endpoint.addr;
        if let Some(first) = seen.insert(addr, index) {
            let message = format!("{addr} is the endpoint [{first}] already");
            return Err(Wrong::at(&at, message));
        }
        if line.server_name.is_some() && config.tls.is_none() {
            let message =
                "sni is for backends with the key \"tls\"; this one is spoken to in plain";
            return Err(Wrong::at(&at, message));
        }
        read.push(line);
    }
    Ok(read)
}

/// Reads `name:port`.
pub(crate) fn address_query(text: &str) -> Result<DnsQuery, String> {
    let shown = printable(text);
    let (name, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("\"{shown}\" has no port; expected name:port"))?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("\"{shown}\" ends in no port number"))?;
    if text.parse::<SocketAddr>().is_ok() {
        return Err(format!(
            "\"{shown}\" is an address; addresses are for \"static\""
        ));
    }
    Ok(DnsQuery::Address(absolute(name)?, port))
}

/// The name that is looked up for a name, both absolute.
fn looked_up(name: Arc<str>, suffixes: &BTreeMap<String, String>) -> Arc<str> {
    let plain = |text: &str| text.trim_matches('.').to_ascii_lowercase();
    let fitting = suffixes.iter().filter_map(|(suffix, instead)| {
        let suffix = format!("{}.", plain(suffix));
        let rest = name.strip_suffix(&suffix)?;
        let is_whole = rest.is_empty() || rest.ends_with('.');
        is_whole.then(|| (suffix.len(), format!("{rest}{}.", plain(instead))))
    });
    let longest = fitting.max_by_key(|(length, _)| *length);
    longest.map_or(name.clone(), |(_, other)| other.into())
}

fn srv_query(text: &str) -> Result<DnsQuery, String> {
    let mut labels = text.split('.');
    let two = [labels.next(), labels.next()];
    if !two
        .into_iter()
        .all(|label| label.is_some_and(|label| label.starts_with('_')))
    {
        let shown = printable(text);
        return Err(format!(
            "\"{shown}\" does not begin with _service._protocol, such as _http._tcp.api.example.com"
        ));
    }
    Ok(DnsQuery::Srv(absolute(text)?))
}

fn policy(config: &BackendConfig, at: &[Step]) -> Result<(Policy, Option<InFlightLimit>), Wrong> {
    let Some(spec) = &config.policy else {
        return Ok(Default::default());
    };
    let (built, contradictions) = spec.build();
    if let Some(first) = contradictions.first() {
        let field = first.field.split('.').map(Step::from);
        let at: Vec<Step> = at
            .iter()
            .cloned()
            .chain(steps!["policy"])
            .chain(field)
            .collect();
        return Err(Wrong::at(&at, first.reason));
    }
    Ok((built.policy, built.in_flight))
}

fn upstream_tls(
    context: &Context<'_>,
    tls: &BackendTlsConfig,
    backend: &BackendConfig,
    lines: &[Line],
    at: &[Step],
    files: &mut Vec<PathBuf>,
) -> Result<UpstreamTls, Failure> {
    let below = |key: &str| [at, &steps!["tls", key]].concat();
    let name = server_name(tls, backend, lines, at)?;
    let verify = match (&tls.ca, tls.verify) {
        (Some(_), Some(false)) => {
            let message = "with \"ca\", endpoints are verified; leave one of them out";
            return Err(Wrong::at(&below("verify"), message).into());
        }
        (None, Some(false)) => None,
        // It is verified, and who does not read files cannot serve.
        (ca, _) if !context.read_files => {
            let file = ca.as_ref().map(|file| context.base.join(file));
            let source = file.map_or(certificate::SYSTEM.into(), |file| {
                file.display().to_string().into()
            });
            Some(Authorities {
                source,
                certificates: Vec::new(),
                revoked: Vec::new(),
            })
        }
        (None, _) => {
            let system = certificate::system_authorities().map_err(|message| {
                let message = format!("{message}; name a file in \"ca\"");
                Failure::File(Wrong::at(&[at, &steps!["tls"]].concat(), message))
            });
            Some(system?)
        }
        (Some(file), _) => {
            let file = context.base.join(file);
            files.push(file.clone());
            let authorities = certificate::read_authorities(&file)
                .map_err(|message| Failure::File(Wrong::at(&below("ca"), message)))?;
            Some(authorities)
        }
    };
    let own_names = lines
        .iter()
        .filter_map(|line| Some((line.endpoint.addr, line.server_name.clone()?)));
    let own_names: BTreeMap<_, _> = own_names.collect();
    let is_name = |name: &Arc<str>| name.parse::<std::net::IpAddr>().is_err();
    Ok(UpstreamTls {
        send_server_name: is_name(&name) || own_names.values().any(is_name),
        server_name: name,
        own_names,
        verify: verify.map(|authorities| UpstreamVerify {
            authorities: Arc::new(authorities),
            depth: 3,
        }),
        client_certificate: None,
        versions: TlsVersions::default(),
    })
}

/// What endpoints prove to be called that have no name of their own.
fn server_name(
    tls: &BackendTlsConfig,
    backend: &BackendConfig,
    lines: &[Line],
    at: &[Step],
) -> Result<Arc<str>, Wrong> {
    let at = [at, &steps!["tls"]].concat();
    if let Some(name) = &tls.server_name {
        return dns_name::of_server(name.trim())
            .map_err(|message| Wrong::at(&[&at[..], &steps!["serverName"]].concat(), message));
    }
    // The targets of SRV records are anybody's names: it takes a name of ours to compare with.
    let looked_up = backend.dns.as_ref().filter(|_| backend.srv.is_none());
    let of_dns = looked_up.and_then(|text| text.trim().rsplit_once(':'));
    if let Some((name, _)) = of_dns {
        return dns_name::of_server(name).map_err(|message| Wrong::at(&at, message));
    }
    let all_named = lines.iter().all(|line| line.server_name.is_some());
    let first = lines.first().and_then(|line| line.server_name.clone());
    let found = first.filter(|_| all_named && backend.srv.is_none());
    found.ok_or_else(|| {
        Wrong::at(
            &at,
            "the key \"serverName\" is missing: what do endpoints prove to be called?",
        )
    })
}
