//! Pure: turns everything watched into one routing table, the endpoints of its clusters, and what is wrong with each object.
//!
//! [`translate()`] never fails as a whole: one bad object costs itself a diagnostic and nothing else. It does no I/O, reads no
//! clock and gives the same output for the same input, whatever order objects came in.
//!
//! `class` says which Ingresses are ours, `ingress` makes routes of them, `service` clusters and endpoints, `policies` what is declared for Services, `tls` certificates,
//! `authorities` whom to believe, `relayed_ports` listeners for what is not HTTP, [`annotation`]
//! policy; `conflict` says who wins.

pub mod annotation;
pub mod authorities;
pub mod certificate;
mod class;
mod conflict;
pub mod diagnostic;
mod dns;
mod ingress;
pub mod manifest;
mod policies;
mod relayed_ports;
mod service;
pub mod settings;
pub mod snapshot;
mod strict;
mod tls;

pub use class::PassedOver;
pub use diagnostic::{Diagnostic, Severity};
pub use policies::Acceptance;
pub use settings::{HostOwnership, Settings};
pub use snapshot::{Kind, Object, ObjectKey, ObjectRef, Snapshot};
pub use strict::ObjectError;

use conflict::HostOwners;
use diagnostic::Findings;
use policies::Policies;
use routing_table::{
    Action, ClusterId, ClusterSet, Discovery, Endpoint, EndpointSets, Listener, ListenerId,
    ListenerProtocol, RelayIndex, RoutingTable, VirtualHosts,
};
use service::Services;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a snapshot means.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// What requests are routed by.
    pub table: Arc<RoutingTable>,
    /// The endpoints of every cluster of the table that has them from EndpointSlices.
    pub endpoints: EndpointSets,
    /// What is wrong, sorted by object.
    pub diagnostics: Vec<Diagnostic>,
    /// The Ingresses that are ours by class, whose status we write; sorted.
    pub claimed: Vec<ObjectKey>,
    /// The Ingresses that are not; sorted.
    pub passed_over: Vec<PassedOver>,
    /// What became of each BackendPolicy.
    pub policies: BTreeMap<ObjectKey, Acceptance>,
}

/// Turns a snapshot into a routing table. Never fails as a whole.
pub fn translate(snapshot: &Snapshot, settings: &Settings) -> Translation {
    let mut findings = Findings::default();
    let ours = class::claimed(snapshot, settings, &mut findings);
    let ours: Vec<_> = ours
        .into_iter()
        .map(|ingress| {
            let uid = ingress.metadata.uid.clone().unwrap_or_default();
            (
                ingress,
                ObjectRef {
                    kind: Kind::Ingress,
                    key: ObjectKey::of(&ingress.metadata),
                    uid,
                },
            )
        })
        .collect();
    let (declared, policies) = Policies::read(snapshot, &mut findings);
    let services = Services {
        snapshot,
        settings,
        declared: &declared,
    };
    let mut owners = HostOwners::new(settings.host_ownership);
    let mut routes = ingress::routes(services, &ours, &mut owners, &mut findings);
    let mut tls = tls::settings(snapshot, settings, &ours, &mut owners, &mut findings);
    tls.passthrough = std::mem::take(&mut routes.passthrough);
    let relayed = relayed_ports::listeners(services, &mut routes.clusters, &mut findings);
    let endpoints = all_endpoints(snapshot, settings, &routes.clusters, &mut findings);
    relayed_ports::warn_of_no_endpoints(&relayed, &routes.clusters, &endpoints, &mut findings);
    let virtual_hosts = Arc::new(VirtualHosts::new(
        routes.virtual_hosts,
        routes.default_route,
    ));
    warn_of_empty_clusters(
        &virtual_hosts,
        &tls.passthrough,
        &routes.clusters,
        &endpoints,
        &ours,
        &mut findings,
    );
    let mut listeners = Vec::new();
    let listener = |name: &str, addr, protocol| Listener {
        id: ListenerId::new(name),
        addr,
        protocol,
        proxy_header: settings.proxy_header,
        virtual_hosts: Arc::clone(&virtual_hosts),
    };
    if let Some(addr) = settings.http {
        listeners.push(listener("http", addr, ListenerProtocol::Http));
    }
    if let Some(addr) = settings.https {
        listeners.push(listener(
            "https",
            addr,
            ListenerProtocol::Https(Arc::new(tls)),
        ));
    }
    listeners.extend(relayed.into_iter().map(|port| port.listener));
    // Cannot fail but for two listeners on one address, which the operator is told at start; serve the first then.
    let table = RoutingTable::new(listeners.clone(), routes.clusters.clone())
        .or_else(|_| RoutingTable::new(listeners.into_iter().take(1).collect(), routes.clusters))
        .unwrap_or_default();
    let mut claimed: Vec<_> = ours.into_iter().map(|(_, object)| object.key).collect();
    claimed.sort();
    let passed_over = class::passed_over(snapshot, &claimed);
    Translation {
        table: Arc::new(table),
        endpoints,
        diagnostics: findings.finish(),
        claimed,
        passed_over,
        policies,
    }
}

/// The endpoints of one cluster: what [`translate()`] would put into [`Translation::endpoints`] for it.
pub fn endpoints(snapshot: &Snapshot, settings: &Settings, cluster: &ClusterId) -> Vec<Endpoint> {
    service::endpoints(snapshot, settings, cluster, &mut Findings::default())
}

fn all_endpoints(
    snapshot: &Snapshot,
    settings: &Settings,
    clusters: &ClusterSet,
    findings: &mut Findings,
) -> EndpointSets {
    let each = clusters.as_slice().iter();
    let ours = each.filter(|cluster| cluster.discovery == Discovery::EndpointSlices);
    ours.map(|cluster| {
        (
            cluster.id.clone(),
            service::endpoints(snapshot, settings, &cluster.id, findings),
        )
    })
    .collect()
}

/// A route to a cluster without endpoints is served 503 by the data plane; its owner should know.
fn warn_of_empty_clusters(
    hosts: &VirtualHosts,
    passthrough: &RelayIndex,
    clusters: &ClusterSet,
    endpoints: &EndpointSets,
    ours: &[(&Arc<k8s_openapi::api::networking::v1::Ingress>, ObjectRef)],
    findings: &mut Findings,
) {
    let by_key: std::collections::HashMap<(&str, &str), &ObjectRef> = ours
        .iter()
        .map(|(_, object)| {
            (
                (object.key.namespace.as_str(), object.key.name.as_str()),
                object,
            )
        })
        .collect();
    let routed = hosts
        .routes()
        .iter()
        .filter_map(|route| match route.action {
            Action::Forward(index) => Some((&route.id, index, "requests are answered 503")),
            Action::Respond(_) => None,
        });
    let passed_on = passthrough
        .iter()
        .map(|(_, relay)| (&relay.id, relay.cluster, "connections are closed"));
    for (id, index, consequence) in routed.chain(passed_on) {
        let Some(cluster) = clusters.get(index) else {
            continue;
        };
        let Some(object) = by_key.get(&(&*id.namespace, &*id.name)) else {
            continue;
        };
        if endpoints.get(&cluster.id).is_some_and(Vec::is_empty) {
            let message = format!(
                "Service {} has no endpoint for port {}; {consequence}",
                service_name(&cluster.id),
                cluster.id.port
            );
            findings.warning(object, &format!("spec.{}", id.rule), "NoEndpoints", message);
        }
    }
}

fn service_name(cluster: &ClusterId) -> String {
    format!("{}/{}", cluster.namespace, cluster.service)
}
