//! Routes of the file become routes of virtual hosts, one set for each listener that serves HTTP.

use super::backends::{Backend, Backends};
use super::filters::networks;
use super::{Context, NAMESPACE};
use crate::config::{Config, FieldConfig, PathConfig, Protocol, RouteConfig};
use crate::problem::{Step, Wrong, steps, unknown};
use http::{HeaderName, Method};
use policy::value::Span;
use routing_table::matcher::conditions::{CookieMatch, HeaderMatch, QueryMatch, ValueMatch};
use routing_table::matcher::path::normal_path;
use routing_table::route::DirectResponse;
use routing_table::{
    Action, Conditions, HostMatch, Limits, PathMatch, RetryPolicy, Route, RouteId, Timeouts,
    VirtualHost, VirtualHosts,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Virtual hosts by the routes that are in them; listeners with the same routes share one value.
#[derive(Default)]
pub(super) struct HostSets {
    /// By route of the file: its hosts, and the routes it comes to.
    routes: Vec<(Vec<HostMatch>, Vec<Route>)>,
    made: BTreeMap<Vec<usize>, Arc<VirtualHosts>>,
}

pub(super) fn build(context: &Context<'_>, backends: &Backends) -> Result<HostSets, Wrong> {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut routes = Vec::new();
    for (index, config) in context.config.routes.iter().enumerate() {
        let at = steps!["routes", index];
        if let Some(name) = &config.name
            && let Some(first) = names.insert(name, index)
        {
            let message = format!("routes[{first}] has this name already");
            return Err(Wrong::at(&[&at[..], &steps!["name"]].concat(), message));
        }
        check_listeners(context.config, config, &at)?;
        routes.push((
            hosts(config, &at)?,
            route(context, backends, index, config)?,
        ));
    }
    Ok(HostSets {
        routes,
        made: BTreeMap::new(),
    })
}

fn check_listeners(all: &Config, config: &RouteConfig, at: &[Step]) -> Result<(), Wrong> {
    for (index, name) in config.listeners.iter().enumerate() {
        let mut http = all.listeners.iter().filter(|one| speaks_http(one.protocol));
        if !http.any(|one| one.shown_name() == *name) {
            let known: Vec<String> = all
                .listeners
                .iter()
                .filter(|one| speaks_http(one.protocol))
                .map(|one| one.shown_name())
                .collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let at = [at, &steps!["listeners", index]].concat();
            return Err(Wrong::at(
                &at,
                unknown("listener of http or https", name, &known),
            ));
        }
    }
    Ok(())
}

pub(super) fn speaks_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Https)
}

impl HostSets {
    /// What a listener serves: the routes that name it, and those that name none.
    ///
    /// # Errors
    /// When one of two routes could never match.
    pub(super) fn of(
        &mut self,
        listener: &str,
        config: &Config,
    ) -> Result<Arc<VirtualHosts>, Wrong> {
        let all = config.routes.iter().enumerate();
        let chosen: Vec<usize> = all
            .filter(|(_, route)| {
                route.listeners.is_empty() || route.listeners.iter().any(|name| name == listener)
            })
            .map(|(index, _)| index)
            .collect();
        if let Some(made) = self.made.get(&chosen) {
            return Ok(Arc::clone(made));
        }
        let mut hosts: BTreeMap<HostMatch, Vec<Route>> = BTreeMap::new();
        // By host and path, the routes of the file with their conditions.
        let mut known: HashMap<(HostMatch, PathMatch), Vec<(usize, Conditions)>> = HashMap::new();
        for index in &chosen {
            let (names, routes) = &self.routes[*index];
            for host in names {
                for route in routes {
                    let key = (host.clone(), route.path.clone());
                    let known = known.entry(key).or_default();
                    let same = known.iter().find(|(_, one)| *one == route.conditions);
                    if let Some((first, _)) = same {
                        let message = format!(
                            "can never match: routes[{first}] has host {host}, {}{} already",
                            route.path, route.conditions
                        );
                        return Err(Wrong::at(&steps!["routes", *index], message));
                    }
                    known.push((*index, route.conditions.clone()));
                    hosts.entry(host.clone()).or_default().push(route.clone());
                }
            }
        }
        let hosts = hosts.into_iter().map(|(host, routes)| VirtualHost {
            host,
            routes,
            client_certificates: None,
        });
        let made = Arc::new(VirtualHosts::new(hosts.collect(), None));
        self.made.insert(chosen, Arc::clone(&made));
        Ok(made)
    }
}

/// The hosts of a route.
fn hosts(config: &RouteConfig, at: &[Step]) -> Result<Vec<HostMatch>, Wrong> {
    if config.hosts.is_empty() {
        return Ok(vec![HostMatch::Any]);
    }
    let mut out = Vec::new();
    for (index, text) in config.hosts.iter().enumerate() {
        let host = host(text, &[at, &steps!["hosts", index]].concat())?;
        if !out.contains(&host) {
            out.push(host);
        }
    }
    Ok(out)
}

/// Reads a host; `*` is any.
pub(super) fn host(text: &str, at: &[Step]) -> Result<HostMatch, Wrong> {
    match text.trim() {
        "*" => Ok(HostMatch::Any),
        "" => Err(Wrong::at(at, "an empty host; \"*\" is any")),
        text => HostMatch::parse(text).map_err(|error| Wrong::at(at, error.to_string())),
    }
}

/// The routes that a route of the file comes to.
fn route(
    context: &Context<'_>,
    backends: &Backends,
    index: usize,
    config: &RouteConfig,
) -> Result<Vec<Route>, Wrong> {
    let at = steps!["routes", index];
    let below = |key: &str| [&at[..], &steps![key]].concat();
    let place = format!("routes[{index}]");
    let id = |rule: &str| RouteId {
        kind: "Route",
        namespace: NAMESPACE.into(),
        name: config.name.as_deref().unwrap_or(&place).into(),
        rule: format!("{place}{rule}").into(),
    };
    let conditions = conditions(config, &at)?;
    let timeouts = timeouts(config);
    let retry = retries(config, &at)?;
    let request_body = match config.max_request_body {
        None => context.defaults.request_body,
        Some(bytes) => Some(bytes).filter(|bytes| *bytes > 0),
    };
    let filters = super::filters::filters(config, &at)?;
    let make = |rule: &str, path: PathMatch, action: Action, backend: Option<Backend>| Route {
        id: id(rule),
        path,
        conditions: conditions.clone(),
        timeouts,
        limits: Limits {
            request_body,
            in_flight: backend.and_then(|backend| backend.in_flight),
        },
        retry,
        filters: filters.clone(),
        client_certificates: None,
        action,
    };
    let to = |rule: &str, path: PathMatch, backend: Backend| {
        make(rule, path, Action::Forward(backend.cluster), Some(backend))
    };
    let backend = config
        .backend
        .as_deref()
        .map(|name| backends.find(name, &below("backend")))
        .transpose()?;
    if config.first_path_segment {
        if config.path.is_some() {
            let message = "with \"firstPathSegment\", the path is what names the backend";
            return Err(Wrong::at(&below("path"), message));
        }
        if config.respond.is_some() {
            let message = "only one of \"firstPathSegment\" and \"respond\" may be given";
            return Err(Wrong::at(&below("respond"), message));
        }
        let named = backends.by_name.iter();
        let mut out: Vec<Route> = named
            .map(|(name, backend)| {
                to(
                    &format!(".{name}"),
                    PathMatch::prefix(&format!("/{name}")),
                    *backend,
                )
            })
            .collect();
        out.extend(backend.map(|backend| to("", PathMatch::prefix("/"), backend)));
        return Ok(out);
    }
    let path = match &config.path {
        None => PathMatch::prefix("/"),
        Some(path) => path_match(path, &below("path"))?,
    };
    match (backend, config.respond) {
        (Some(backend), None) => Ok(vec![to("", path, backend)]),
        (None, Some(status @ 200..=599)) => {
            let response = DirectResponse {
                status,
                reason: "configured",
            };
            Ok(vec![make("", path, Action::Respond(response), None)])
        }
        (None, Some(status)) => {
            let message = format!("{status} is no status from 200 to 599");
            Err(Wrong::at(&below("respond"), message))
        }
        (Some(_), Some(_)) => {
            let message = "only one of \"backend\" and \"respond\" may be given";
            Err(Wrong::at(&below("respond"), message))
        }
        (None, None) if config.redirect.as_ref().is_some_and(|to| to.url.is_some()) => {
            let never = DirectResponse {
                status: 404,
                reason: "redirected",
            };
            Ok(vec![make("", path, Action::Respond(never), None)])
        }
        (None, None) => Err(Wrong::at(&at, "the key \"backend\" is missing")),
    }
}

fn retries(config: &RouteConfig, at: &[Step]) -> Result<RetryPolicy, Wrong> {
    let usual = RetryPolicy::default();
    let Some(given) = &config.retries else {
        return Ok(usual);
    };
    let number = |key: &str, value: Option<u32>, least: u32, usual: u32| match value {
        None => Ok(usual),
        Some(number) if (least..=100).contains(&number) => Ok(number),
        Some(other) => {
            let at = [at, &steps!["retries", key]].concat();
            let message = format!("{other} is not from {least} to 100");
            Err(Wrong::at(&at, message))
        }
    };
    Ok(RetryPolicy {
        attempts: number("attempts", given.attempts, 1, usual.attempts)?,
        same_endpoint: number("sameEndpoint", given.same_endpoint, 0, usual.same_endpoint)?,
        pause: given
            .pause
            .as_ref()
            .map_or(usual.pause, |pause| *pause.get()),
    })
}

fn timeouts(config: &RouteConfig) -> Timeouts {
    let usual = Timeouts::default();
    let time = |span: Option<&Span>, usual: Duration| span.map_or(usual, |span| *span.get());
    match &config.timeouts {
        None => usual,
        Some(given) => Timeouts {
            connect: time(given.connect.as_ref(), usual.connect),
            first_byte: time(given.first_byte.as_ref(), usual.first_byte),
            idle: time(given.idle.as_ref(), usual.idle),
        },
    }
}

fn path_match(config: &PathConfig, at: &[Step]) -> Result<PathMatch, Wrong> {
    let (key, text) = match (&config.exact, &config.prefix, &config.starts_with) {
        (Some(text), None, None) => ("exact", text),
        (None, Some(text), None) => ("prefix", text),
        (None, None, Some(text)) => ("startsWith", text),
        _ => {
            let message = "exactly one of \"exact\", \"prefix\" and \"startsWith\" must be given";
            return Err(Wrong::at(at, message));
        }
    };
    let at = [at, &steps![key]].concat();
    let path = normal_path(text).map_err(|error| Wrong::at(&at, error.to_string()))?;
    Ok(match key {
        "exact" => PathMatch::Exact(path.into()),
        "prefix" => PathMatch::prefix(&path),
        _ => PathMatch::StartsWith(path.into()),
    })
}

fn conditions(config: &RouteConfig, at: &[Step]) -> Result<Conditions, Wrong> {
    let below = |key: &str| [at, &steps![key]].concat();
    let method = match &config.method {
        None => None,
        Some(text) => {
            let method = Method::from_bytes(text.as_bytes()).ok().filter(|method| {
                // Methods are case-sensitive; nobody means `get`.
                method.as_str().bytes().all(|b| !b.is_ascii_lowercase())
            });
            let message = "not a method, such as GET or POST";
            Some(method.ok_or_else(|| Wrong::at(&below("method"), message))?)
        }
    };
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (index, field) in config.headers.iter().enumerate() {
        let at = [&below("headers")[..], &steps![index]].concat();
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| {
            let at = [&at[..], &steps!["name"]].concat();
            Wrong::at(&at, "not the name of a header field")
        })?;
        if headers.iter().any(|one| one.name == name) {
            return Err(Wrong::at(&at, format!("{name} stands in the list already")));
        }
        let value = value(field, &at)?;
        headers.push(HeaderMatch { name, value });
    }
    let query = named(&config.query, &below("query"))?;
    let cookies = named(&config.cookies, &below("cookies"))?;
    for (index, (name, value)) in cookies.iter().enumerate() {
        let at = [&below("cookies")[..], &steps![index]].concat();
        cookie(name, value).map_err(|message| Wrong::at(&at, message))?;
    }
    let mut clients = networks(&config.clients, &below("clients"))?;
    // Their order says nothing, so that two routes of the same ones are the same.
    clients.sort();
    clients.dedup();
    Ok(Conditions {
        method,
        headers,
        query: query
            .into_iter()
            .map(|(name, value)| QueryMatch { name, value })
            .collect(),
        cookies: cookies
            .into_iter()
            .map(|(name, value)| CookieMatch { name, value })
            .collect(),
        clients,
    })
}

/// Conditions on things that are called by any name, each once.
fn named(all: &[FieldConfig], at: &[Step]) -> Result<Vec<(Box<str>, ValueMatch)>, Wrong> {
    let mut out: Vec<(Box<str>, ValueMatch)> = Vec::new();
    for (index, field) in all.iter().enumerate() {
        let at = [at, &steps![index]].concat();
        let name: Box<str> = field.name.as_str().into();
        if name.is_empty() {
            return Err(Wrong::at(&at, "an empty name"));
        }
        if out.iter().any(|(known, _)| *known == name) {
            return Err(Wrong::at(&at, format!("{name} stands in the list already")));
        }
        out.push((name, value(field, &at)?));
    }
    Ok(out)
}

/// Whether a cookie can be called so and have this value (RFC 6265 section 4.1.1); clients that send more are of no use to a
/// condition that is compared as it stands.
fn cookie(name: &str, value: &ValueMatch) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if !name.bytes().all(token) {
        return Err(format!("{name:?} is not the name of a cookie"));
    }
    let octet = |byte: u8| byte.is_ascii_graphic() && !b",;\\".contains(&byte);
    match value {
        ValueMatch::Exact(value) if !value.bytes().all(octet) => {
            Err(format!("no cookie has the value {value:?}"))
        }
        _ => Ok(()),
    }
}

fn value(field: &FieldConfig, at: &[Step]) -> Result<ValueMatch, Wrong> {
    match (&field.value, field.present) {
        (Some(value), false) => Ok(ValueMatch::Exact(value.as_str().into())),
        (None, true) => Ok(ValueMatch::Present),
        _ => {
            let message = "either \"value\" or \"present: true\" must be given";
            Err(Wrong::at(at, message))
        }
    }
}
