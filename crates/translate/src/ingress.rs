//! Ingresses become virtual hosts and routes.
//!
//! Objects come oldest first, and the first to name a host and path keeps it.

mod filters;
mod passthrough;

use self::filters::TlsHosts;
use crate::annotation::{self, Policy};
use crate::authorities::{self, Demand, UpstreamPlan};
use crate::conflict::HostOwners;
use crate::diagnostic::Findings;
use crate::service::Services;
use crate::settings::Settings;
use crate::snapshot::ObjectRef;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule};
use routing_table::matcher::path::normal_path;
use routing_table::route::DirectResponse;
use routing_table::{
    Action, ClusterSet, HostMatch, Limits, PathMatch, RelayIndex, Route, RouteId, Transport,
    UpstreamProtocol, VirtualHost,
};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};
use std::sync::Arc;

/// Longest path of a rule, in bytes.
const MAX_PATH: usize = 1024;

/// What the Ingresses come to.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) virtual_hosts: Vec<VirtualHost>,
    /// For requests that nothing matches.
    pub(crate) default_route: Option<Route>,
    pub(crate) clusters: ClusterSet,
    /// Hosts whose TLS is not ours to do.
    pub(crate) passthrough: RelayIndex,
}

/// What the routes of one Ingress have in common.
struct Owner<'a> {
    object: &'a ObjectRef,
    namespace: Arc<str>,
    name: Arc<str>,
    policy: Policy,
    /// TLS towards its endpoints, if it wants any.
    upstream: Option<UpstreamPlan>,
}

/// What has been decided so far.
struct Table<'a> {
    settings: &'a Settings,
    services: Services<'a>,
    hosts: BTreeMap<HostMatch, Vec<Route>>,
    /// Which Ingress has which host and path, and where in it they are.
    taken: HashMap<(HostMatch, PathMatch), (String, String)>,
    /// What is demanded of the clients of a host, and by which Ingress.
    demands: BTreeMap<HostMatch, (Demand, String)>,
    clusters: ClusterSet,
    passthrough: RelayIndex,
    tls_hosts: TlsHosts,
}

/// Routes for all Ingresses, which come oldest first.
pub(crate) fn routes(
    services: Services<'_>,
    ingresses: &[(&Arc<Ingress>, ObjectRef)],
    owners: &mut HostOwners,
    findings: &mut Findings,
) -> Routes {
    let Services {
        snapshot, settings, ..
    } = services;
    let mut table = Table {
        settings,
        services,
        hosts: BTreeMap::new(),
        taken: HashMap::new(),
        demands: BTreeMap::new(),
        clusters: ClusterSet::default(),
        passthrough: RelayIndex::default(),
        tls_hosts: TlsHosts::of(snapshot, settings, ingresses),
    };
    let mut default_route: Option<Route> = None;
    // Default backends come last: a path of any Ingress on the host goes before them.
    let mut defaults: Vec<(HostMatch, Route)> = Vec::new();
    for (ingress, object) in ingresses {
        let mut policy = annotation::policy(
            ingress.metadata.annotations.as_ref(),
            settings,
            object,
            findings,
        );
        if policy.withdrawn {
            continue;
        }
        let demand = authorities::demand(snapshot, settings, &policy, object, findings);
        let upstream = authorities::upstream(snapshot, settings, &policy, object, findings);
        let upstream = upstream.unwrap_or_else(|reason| {
            policy.closed = policy.closed.or(Some(reason));
            None
        });
        passthrough::decide(&mut policy, &demand, object, findings);
        if let (Some(plan), None) = (&upstream, policy.closed) {
            plan.warn_of_trust(&policy, object, findings);
        }
        let owner = Owner {
            object,
            namespace: object.key.namespace.as_str().into(),
            name: object.key.name.as_str().into(),
            policy,
            upstream,
        };
        let spec = ingress.spec.clone().unwrap_or_default();
        let rules = spec.rules.unwrap_or_default();
        let backend = spec.default_backend.as_ref();
        let mut own_hosts = BTreeSet::new();
        for (position, rule) in rules.iter().enumerate() {
            let host = table.add_rule(&owner, position, rule, backend.is_some(), owners, findings);
            if let (true, Some(host)) = (owner.policy.passthrough, &host) {
                table.pass_on(&owner, position, rule, backend, host, findings);
            }
            own_hosts.extend(host);
        }
        for host in &own_hosts {
            table.demand(&owner, host, &demand, findings);
        }
        match backend {
            None if rules.is_empty() => {
                let message =
                    "it has neither rules nor a default backend, so it serves nothing".to_owned();
                findings.error(object, "spec", "NoRules", message);
            }
            None => {}
            Some(backend) if rules.is_empty() => {
                let taken = default_route
                    .as_ref()
                    .map(|route| format!("{}/{}", route.id.namespace, route.id.name));
                match (taken, owners.claim(&HostMatch::Any, &object.key.namespace)) {
                    (Some(winner), _) => {
                        let message = format!(
                            "Ingress {winner} is older and has the default backend of everything"
                        );
                        findings.error(object, "spec.defaultBackend", "Conflict", message);
                    }
                    (None, Err(namespace)) => {
                        let message = format!(
                            "requests without a host of their own belong to namespace {namespace}"
                        );
                        findings.error(object, "spec.defaultBackend", "HostConflict", message);
                    }
                    (None, Ok(())) => {
                        table.demand(&owner, &HostMatch::Any, &demand, findings);
                        let path = PathMatch::prefix("/");
                        let mut route = table.route(
                            &owner,
                            "defaultBackend",
                            "spec.defaultBackend",
                            path,
                            backend,
                            findings,
                        );
                        let any = &HostMatch::Any;
                        table.tls_hosts.add_filters(&owner, any, &mut route);
                        default_route = Some(route);
                    }
                }
            }
            Some(backend) => {
                for host in own_hosts {
                    let path = PathMatch::prefix("/");
                    let mut route = table.route(
                        &owner,
                        "defaultBackend",
                        "spec.defaultBackend",
                        path,
                        backend,
                        findings,
                    );
                    table.tls_hosts.add_filters(&owner, &host, &mut route);
                    defaults.push((host, route));
                }
            }
        }
    }
    for (host, route) in defaults {
        // A host that has a root path of its own needs no default.
        let root = (host.clone(), PathMatch::prefix("/"));
        if let hash_map::Entry::Vacant(free) = table.taken.entry(root) {
            free.insert((route.id.to_string(), String::new()));
            table.hosts.entry(host).or_default().push(route);
        }
    }
    table.take_back(ingresses, findings);
    let (virtual_hosts, default_route) = with_demands(table.hosts, default_route, &table.demands);
    Routes {
        virtual_hosts,
        default_route,
        clusters: table.clusters,
        passthrough: table.passthrough,
    }
}

/// Puts demands on hosts; what cannot be demanded closes all of a host, whichever Ingress its routes are of.
fn with_demands(
    mut hosts: BTreeMap<HostMatch, Vec<Route>>,
    mut default_route: Option<Route>,
    demands: &BTreeMap<HostMatch, (Demand, String)>,
) -> (Vec<VirtualHost>, Option<Route>) {
    for host in demands.keys() {
        // A demand holds for requests that no path matches too.
        hosts.entry(host.clone()).or_default();
    }
    let demand = |host: &HostMatch| demands.get(host).map(|(demand, _)| demand);
    if let (Some(route), Some(of_any)) = (&mut default_route, demand(&HostMatch::Any)) {
        match of_any {
            Demand::Certificates(demand) => route.client_certificates = Some(Arc::clone(demand)),
            Demand::Closed(reason) => close(route, reason),
            Demand::Nothing => {}
        }
    }
    let virtual_host = |(host, mut routes): (HostMatch, Vec<Route>)| {
        let client_certificates = match demand(&host) {
            Some(Demand::Certificates(demand)) => Some(Arc::clone(demand)),
            Some(Demand::Closed(reason)) => {
                routes.iter_mut().for_each(|route| close(route, reason));
                None
            }
            Some(Demand::Nothing) | None => None,
        };
        VirtualHost {
            host,
            routes,
            client_certificates,
        }
    };
    (hosts.into_iter().map(virtual_host).collect(), default_route)
}

/// Makes a route answer 503 whatever it is asked.
fn close(route: &mut Route, reason: &'static str) {
    route.action = unavailable(reason);
    route.filters.clear();
}

fn unavailable(reason: &'static str) -> Action {
    Action::Respond(DirectResponse {
        status: 503,
        reason,
    })
}

impl Table<'_> {
    /// Notes what an Ingress demands of the clients of a host. The first that demands anything decides.
    fn demand(
        &mut self,
        owner: &Owner<'_>,
        host: &HostMatch,
        demand: &Demand,
        findings: &mut Findings,
    ) {
        if *demand == Demand::Nothing {
            return;
        }
        match self.demands.entry(host.clone()) {
            Entry::Vacant(free) => {
                free.insert((demand.clone(), owner.object.key.to_string()));
            }
            Entry::Occupied(first) if first.get().0 == *demand => {}
            Entry::Occupied(first) => {
                let message = format!(
                    "Ingress {} is older and says what clients of {host} must show",
                    first.get().1
                );
                findings.warning(owner.object, "metadata.annotations", "Conflict", message);
            }
        }
    }

    /// Adds a rule; gives its host, unless it could not be had.
    fn add_rule(
        &mut self,
        owner: &Owner<'_>,
        position: usize,
        rule: &IngressRule,
        has_default: bool,
        owners: &mut HostOwners,
        findings: &mut Findings,
    ) -> Option<HostMatch> {
        let field = format!("spec.rules[{position}]");
        let host = match HostMatch::parse(rule.host.as_deref().unwrap_or_default()) {
            Ok(host) => host,
            Err(error) => {
                let message = format!("{error}; the rule was left out");
                findings.error(
                    owner.object,
                    &format!("{field}.host"),
                    "InvalidHost",
                    message,
                );
                return None;
            }
        };
        if let Err(namespace) = owners.claim(&host, &owner.object.key.namespace) {
            let what = if host == HostMatch::Any {
                "the catch-all host".to_owned()
            } else {
                format!("host {host}")
            };
            let message = format!(
                "{what} belongs to namespace {namespace}, whose Ingress is older; the rule was left out"
            );
            findings.error(
                owner.object,
                &format!("{field}.host"),
                "HostConflict",
                message,
            );
            return None;
        }
        let paths = rule
            .http
            .as_ref()
            .map(|http| http.paths.as_slice())
            .unwrap_or_default();
        if paths.is_empty() && !has_default {
            let message =
                "the rule has no paths and there is no default backend, so it serves nothing"
                    .to_owned();
            findings.error(owner.object, &field, "NoPaths", message);
        }
        for (index, path) in paths.iter().enumerate() {
            self.add_path(
                owner,
                &host,
                &format!("rules[{position}].http.paths[{index}]"),
                path,
                findings,
            );
        }
        Some(host)
    }

    fn add_path(
        &mut self,
        owner: &Owner<'_>,
        host: &HostMatch,
        rule: &str,
        path: &HTTPIngressPath,
        findings: &mut Findings,
    ) {
        let field = format!("spec.{rule}");
        let matcher = match path_match(owner, path) {
            Ok(matcher) => matcher,
            Err((reason, message)) => {
                findings.error(
                    owner.object,
                    &format!("{field}.path"),
                    reason,
                    format!("{message}; the path was left out"),
                );
                return;
            }
        };
        if matches!(matcher, PathMatch::Prefix(_) | PathMatch::StartsWith(_))
            && looks_like_regex(matcher.key())
        {
            let message =
                "the path looks like a regular expression, but is matched as it stands".to_owned();
            findings.warning(
                owner.object,
                &format!("{field}.path"),
                "LooksLikeRegex",
                message,
            );
        }
        match self.taken.entry((host.clone(), matcher.clone())) {
            hash_map::Entry::Occupied(winner) => {
                let (ingress, its_rule) = winner.get();
                let message = if *ingress == owner.object.key.to_string() {
                    format!("{its_rule} has {matcher} of host {host} already")
                } else {
                    format!("Ingress {ingress} is older and has {matcher} of host {host}")
                };
                findings.error(owner.object, &field, "Conflict", message);
                return;
            }
            hash_map::Entry::Vacant(free) => {
                free.insert((owner.object.key.to_string(), rule.to_owned()));
            }
        }
        let mut route = self.route(
            owner,
            rule,
            &format!("{field}.backend"),
            matcher,
            &path.backend,
            findings,
        );
        self.tls_hosts.add_filters(owner, host, &mut route);
        match self.hosts.entry(host.clone()) {
            Entry::Occupied(mut routes) => routes.get_mut().push(route),
            Entry::Vacant(host) => drop(host.insert(vec![route])),
        }
    }

    /// A route to a backend; one that cannot be had answers 503.
    fn route(
        &mut self,
        owner: &Owner<'_>,
        rule: &str,
        field: &str,
        path: PathMatch,
        backend: &IngressBackend,
        findings: &mut Findings,
    ) -> Route {
        let mut in_flight = None;
        let action = match (&owner.policy.closed, &backend.service) {
            (Some(reason), _) => unavailable(reason),
            (None, None) => {
                let what = match backend.resource {
                    Some(_) => "only a Service can be a backend",
                    None => "it names no Service: `service` is missing",
                };
                let message = format!("{what}; its requests are answered 503");
                findings.error(owner.object, field, "UnsupportedBackend", message);
                unavailable("unsupported_backend")
            }
            (None, Some(service)) => {
                match self
                    .services
                    .cluster(&owner.object.key.namespace, service, Transport::Tcp)
                {
                    Ok((mut cluster, declared)) => {
                        if let Some(plan) = &owner.upstream {
                            let (tls, variant) = plan.for_service(&owner.namespace, &service.name);
                            cluster.tls = Some(Arc::new(tls));
                            cluster.id.variant = Some(variant);
                        }
                        if let Some(protocol) = owner.policy.upstream_protocol
                            && protocol != cluster.protocol
                        {
                            cluster.protocol = protocol;
                            let way = cluster.id.variant.as_deref().unwrap_or("plain");
                            let spoken = match protocol {
                                UpstreamProtocol::Http1 => "HTTP/1.1",
                                UpstreamProtocol::Http2 => "HTTP/2",
                            };
                            cluster.id.variant = Some(format!("{spoken}, {way}").into());
                        }
                        let (built, _) = declared.laid_over(&owner.policy.endpoints).build();
                        in_flight = built.in_flight;
                        if built.policy != *cluster.policy {
                            // Ingresses that want the same share what is learnt of the endpoints.
                            let way = match cluster.id.variant.as_deref() {
                                Some(way) => format!("{}, {way}", built.policy),
                                None => built.policy.to_string(),
                            };
                            cluster.id.variant = Some(way.into());
                            cluster.policy = Arc::new(built.policy);
                        }
                        cluster.proxy_header = owner.policy.proxy_header;
                        let index = self.clusters.add(cluster);
                        let used = self.clusters.get(index).and_then(|one| one.proxy_header);
                        if used != owner.policy.proxy_header {
                            let message = "an older Ingress of the same Service and port asks for another \
                                       PROXY protocol towards it, which is used";
                            findings.error(
                                owner.object,
                                field,
                                "BackendConflict",
                                message.to_owned(),
                            );
                        }
                        Action::Forward(index)
                    }
                    Err(error) => {
                        let message = format!("{}; its requests are answered 503", error.message);
                        findings.error(owner.object, field, error.reason, message);
                        unavailable(error.flag)
                    }
                }
            }
        };
        let id = RouteId {
            kind: "Ingress",
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            rule: rule.into(),
        };
        let Policy {
            timeouts,
            limits,
            retry,
            ..
        } = owner.policy;
        Route {
            id,
            path,
            conditions: Default::default(),
            timeouts,
            limits: Limits {
                in_flight,
                ..limits
            },
            retry,
            filters: Vec::new(),
            client_certificates: None,
            action,
        }
    }
}

/// Reads a path and its type.
fn path_match(
    owner: &Owner<'_>,
    path: &HTTPIngressPath,
) -> Result<PathMatch, (&'static str, String)> {
    let text = path
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    if text.len() > MAX_PATH {
        return Err((
            "InvalidPath",
            format!("the path has {} bytes, {MAX_PATH} are the most", text.len()),
        ));
    }
    if owner.policy.regex && path.path_type != "Exact" && looks_like_regex(text) {
        return Err((
            "UnsupportedRegex",
            "regular expressions in paths are not supported".to_owned(),
        ));
    }
    let normal = normal_path(text).map_err(|error| ("InvalidPath", error.to_string()))?;
    match path.path_type.as_str() {
        "Exact" => Ok(PathMatch::Exact(normal.as_ref().into())),
        "Prefix" => Ok(PathMatch::prefix(&normal)),
        // As ingress-nginx has it: characters, not elements.
        "ImplementationSpecific" if normal == "/" => Ok(PathMatch::prefix("/")),
        "ImplementationSpecific" => Ok(PathMatch::StartsWith(normal.as_ref().into())),
        "" => Err((
            "InvalidPath",
            "pathType is missing: Exact, Prefix or ImplementationSpecific".to_owned(),
        )),
        other => Err((
            "InvalidPath",
            format!("path type {other:?} is none of Exact, Prefix, ImplementationSpecific"),
        )),
    }
}

fn looks_like_regex(path: &str) -> bool {
    path.contains(['*', '(', '[', '|', '^', '$', '?', '+', '\\', '{'])
}
