//! Virtual hosts and the index that finds a route in them.
//!
//! The index is built once, in [`VirtualHosts::new`], and assumes:
//! - hosts and paths are in normal form, on both sides;
//! - an exact host hides a wildcard, a wildcard hides "any"; a request never falls from one virtual host to another
//!   (as in ingress-nginx, where the server block is chosen first), only to the default route;
//! - inside a virtual host the first match in [`Route::precedence`] order wins, conditions included.
//!
//! Look-ups cost one hash per distinct path length, however many hosts and paths there are. Conditions are looked at only in
//! hosts that have some.

use crate::client_certificate::ClientCertificates;
use crate::matcher::host::parent;
use crate::matcher::{HostMatch, PathMatch, RequestFields};
use crate::route::Route;
use foldhash::HashMap;
use std::sync::Arc;

/// Everything served under one host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualHost {
    /// The host.
    pub host: HostMatch,
    /// Its routes. Order breaks ties between equal paths: put the older object first.
    pub routes: Vec<Route>,
    /// What its clients must show. Every one of its routes takes it over.
    pub client_certificates: Option<Arc<ClientCertificates>>,
}

/// All virtual hosts of a listener, indexed.
#[derive(Debug, Clone, Default)]
pub struct VirtualHosts {
    /// Sorted by host; inside a host by precedence; the default route last.
    routes: Vec<Arc<Route>>,
    hosts: Vec<Indexed>,
    exact: HashMap<Box<str>, usize>,
    wildcard: HashMap<Box<str>, usize>,
    any: Option<usize>,
    default_route: Option<usize>,
}

impl PartialEq for VirtualHosts {
    fn eq(&self, other: &Self) -> bool {
        // The maps are made from these three.
        self.routes == other.routes
            && self.default_route == other.default_route
            && self.hosts.len() == other.hosts.len()
            && self.hosts.iter().zip(&other.hosts).all(|(a, b)| {
                a.host == b.host
                    && a.paths.range == b.paths.range
                    && a.client_certificates == b.client_certificates
            })
    }
}

impl Eq for VirtualHosts {}

impl VirtualHosts {
    /// Indexes virtual hosts. Several entries for one host are merged, in the order given; of their demands for client
    /// certificates the first counts. `default_route` answers what no route matches.
    pub fn new(virtual_hosts: Vec<VirtualHost>, default_route: Option<Route>) -> Self {
        let mut merged: std::collections::BTreeMap<
            HostMatch,
            (Vec<Route>, Option<Arc<ClientCertificates>>),
        > = Default::default();
        for virtual_host in virtual_hosts {
            let (routes, demand) = merged.entry(virtual_host.host).or_default();
            routes.extend(virtual_host.routes);
            *demand = demand.take().or(virtual_host.client_certificates);
        }
        let mut this = Self::default();
        for (host, (mut routes, client_certificates)) in merged {
            routes.sort_by(Route::precedence);
            for route in &mut routes {
                route.client_certificates.clone_from(&client_certificates);
            }
            let first = this.routes.len();
            this.routes.extend(routes.into_iter().map(Arc::new));
            let position = this.hosts.len();
            match &host {
                HostMatch::Exact(name) => drop(this.exact.insert(name.clone(), position)),
                HostMatch::Wildcard(suffix) => drop(this.wildcard.insert(suffix.clone(), position)),
                HostMatch::Any => this.any = Some(position),
            }
            this.hosts.push(Indexed {
                host,
                paths: PathIndex::new(&this.routes, first),
                client_certificates,
            });
        }
        if let Some(route) = default_route {
            this.default_route = Some(this.routes.len());
            this.routes.push(Arc::new(route));
        }
        this
    }

    /// All routes; positions in this slice are what [`VirtualHosts::find`] returns.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The position of the route for a host and path, both in normal form, whose conditions are met.
    pub fn find(&self, host: &str, path: &str, fields: &RequestFields<'_>) -> Option<usize> {
        self.host(host)
            .or(self.any)
            .and_then(|p| self.hosts[p].paths.find(&self.routes, path, fields))
            .or(self.default_route)
    }

    /// The position of the virtual host that names this host.
    fn host(&self, host: &str) -> Option<usize> {
        self.exact
            .get(host)
            .or_else(|| self.wildcard.get(parent(host)?))
            .copied()
    }

    /// What clients that ask for this server name must show; without a name, or for one that no virtual host has, that is
    /// for "any" to say.
    pub fn client_certificates(
        &self,
        server_name: Option<&str>,
    ) -> Option<&Arc<ClientCertificates>> {
        let position = server_name.and_then(|name| self.host(name)).or(self.any)?;
        self.hosts[position].client_certificates.as_ref()
    }

    /// Every host that demands client certificates, with its demand.
    pub fn demands(&self) -> impl Iterator<Item = (&HostMatch, &Arc<ClientCertificates>)> {
        self.hosts
            .iter()
            .filter_map(|host| Some((&host.host, host.client_certificates.as_ref()?)))
    }

    /// The hosts in order, each with its routes by precedence.
    pub fn iter(&self) -> impl Iterator<Item = (&HostMatch, &[Arc<Route>])> {
        self.hosts
            .iter()
            .map(|indexed| (&indexed.host, &self.routes[indexed.paths.range.clone()]))
    }

    /// What answers a request that no route matches.
    pub fn default_route(&self) -> Option<&Arc<Route>> {
        self.default_route.map(|position| &self.routes[position])
    }
}

/// One virtual host.
#[derive(Debug, Clone)]
struct Indexed {
    host: HostMatch,
    paths: PathIndex,
    client_certificates: Option<Arc<ClientCertificates>>,
}

/// Positions of routes by path, each list in order of precedence.
type Positions = HashMap<Box<str>, Vec<usize>>;

/// The routes of one virtual host by path.
#[derive(Debug, Clone, Default)]
struct PathIndex {
    /// This host's part of the routes.
    range: std::ops::Range<usize>,
    /// Exact paths to the position of their first route.
    exact: HashMap<Box<str>, usize>,
    /// Exact paths to all of their routes, where this host has routes with conditions.
    exact_in_order: Option<Positions>,
    /// The rest, by length of their key, longest first.
    by_length: Vec<(usize, Positions)>,
}

impl PathIndex {
    fn new(routes: &[Arc<Route>], first: usize) -> Self {
        let conditional = routes[first..]
            .iter()
            .any(|route| !route.conditions.is_empty());
        let mut this = Self {
            range: first..routes.len(),
            exact_in_order: conditional.then(HashMap::default),
            ..Self::default()
        };
        for (position, route) in routes.iter().enumerate().skip(first) {
            let key = route.path.key();
            if matches!(route.path, PathMatch::Exact(_)) {
                this.exact.entry(key.into()).or_insert(position);
                if let Some(all) = &mut this.exact_in_order {
                    all.entry(key.into()).or_default().push(position);
                }
                continue;
            }
            let group = match this
                .by_length
                .iter()
                .position(|(length, _)| *length == key.len())
            {
                Some(group) => group,
                None => {
                    this.by_length.push((key.len(), HashMap::default()));
                    this.by_length.len() - 1
                }
            };
            this.by_length[group]
                .1
                .entry(key.into())
                .or_default()
                .push(position);
        }
        this.by_length
            .sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        this
    }

    fn find(&self, routes: &[Arc<Route>], path: &str, fields: &RequestFields<'_>) -> Option<usize> {
        match &self.exact_in_order {
            None => {
                if !self.exact.is_empty()
                    && let Some(position) = self.exact.get(path)
                {
                    return Some(*position);
                }
            }
            Some(all) => {
                let mut positions = all.get(path).into_iter().flatten();
                if let Some(position) = positions.find(|p| routes[**p].conditions.meets(fields)) {
                    return Some(*position);
                }
            }
        }
        let conditional = self.exact_in_order.is_some();
        for (length, group) in &self.by_length {
            let Some(key) = path.get(..*length) else {
                continue;
            };
            let Some(positions) = group.get(key) else {
                continue;
            };
            let matches = |route: &Route| {
                route.path.matches(path) && (!conditional || route.conditions.meets(fields))
            };
            if let Some(position) = positions.iter().find(|p| matches(&routes[**p])) {
                return Some(*position);
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "virtual_host_tests.rs"]
mod tests;
