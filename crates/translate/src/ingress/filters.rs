//! Filters of the routes of an Ingress, and which hosts have TLS to be sent to.

use super::Owner;
use crate::settings::{HostOwnership, Settings};
use crate::snapshot::{ObjectRef, Snapshot};
use crate::tls;
use k8s_openapi::api::networking::v1::Ingress;
use routing_table::{HostMatch, Route};
use std::collections::HashSet;
use std::sync::Arc;

/// The hosts with TLS. A namespace cannot give TLS to the hosts of another.
#[derive(Default)]
pub(super) struct TlsHosts {
    hosts: HashSet<(String, HostMatch)>,
    shared: bool,
}

impl TlsHosts {
    pub(super) fn of(
        snapshot: &Snapshot,
        settings: &Settings,
        ingresses: &[(&Arc<Ingress>, ObjectRef)],
    ) -> Self {
        let mut this = Self {
            shared: settings.host_ownership == HostOwnership::Shared,
            ..Self::default()
        };
        if settings.https.is_none() {
            return this;
        }
        for (ingress, object) in ingresses {
            let namespace = this.namespace(&object.key.namespace);
            let hosts = tls::hosts(snapshot, settings, ingress, object);
            this.hosts
                .extend(hosts.into_iter().map(|host| (namespace.clone(), host)));
        }
        this
    }

    fn namespace(&self, namespace: &str) -> String {
        if self.shared { "" } else { namespace }.to_owned()
    }

    fn has(&self, namespace: &str, host: &HostMatch) -> bool {
        let namespace = self.namespace(namespace);
        let wildcard = match host {
            HostMatch::Exact(name) => name
                .split_once('.')
                .map(|(_, suffix)| HostMatch::Wildcard(suffix.into())),
            _ => None,
        };
        let hosts = [Some(host.clone()), wildcard].into_iter().flatten();
        hosts
            .into_iter()
            .any(|host| self.hosts.contains(&(namespace.clone(), host)))
    }

    /// Gives a route of this host the filters that its Ingress asks for. One that is closed needs none.
    pub(super) fn add_filters(&self, owner: &Owner<'_>, host: &HostMatch, route: &mut Route) {
        let wish = &owner.policy.filters;
        if owner.policy.closed.is_some() {
            return;
        }
        let to_https =
            wish.force_ssl_redirect || (wish.ssl_redirect && self.has(&owner.namespace, host));
        route.filters = wish.filters(&route.path, to_https);
    }
}
