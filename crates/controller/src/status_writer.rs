//! Writes the addresses that Ingresses are reached at into their status. Only the leader writes, and only differences.

use crate::metrics::Metrics;
use crate::run::Report;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translate::ObjectKey;

/// After a failure everything is looked at again.
const RETRY: Duration = Duration::from_secs(2);
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// The Service in front of us (named to [`crate::Options::publish_service`]).
    Service,
    /// These: IP addresses or host names.
    Given(Vec<String>),
    /// The node we run on: its external, else its internal address.
    Node(String),
}

/// Settings of the writer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the addresses come from.
    pub addresses: Addresses,
    /// Take the addresses away when the leader stops.
    pub clear_on_shutdown: bool,
}

/// What a Service is reached at: its load balancer, else its external addresses, else its cluster address.
pub(crate) fn addresses_of(service: &Service) -> Vec<IngressLoadBalancerIngress> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_ref());
    let ip = |ip: &String| IngressLoadBalancerIngress { ip: Some(ip.clone()), ..IngressLoadBalancerIngress::default() };
    if let Some(ingress) = balancer.filter(|ingress| !ingress.is_empty()) {
        return ingress
            .iter()
            .map(|one| IngressLoadBalancerIngress { ip: one.ip.clone(), hostname: one.hostname.clone(), ports: None })
            .collect();
    }
    let Some(spec) = &service.spec else { return Vec::new() };
    if let Some(external) = spec.external_ips.as_ref().filter(|ips| !ips.is_empty()) {
        return external.iter().map(ip).collect();
    }
    // A load balancer that has no address yet will have one; until then the cluster address would be wrong.
    if spec.type_.as_deref() == Some("LoadBalancer") {
        return Vec::new();
    }
    spec.cluster_ip.iter().filter(|address| !address.is_empty() && *address != "None").map(ip).collect()
}

/// Writes until `shutdown`, then clears if told so. `leader` says when writing is ours.
pub async fn run(
    client: Client,
    settings: Settings,
    mut report: watch::Receiver<Option<Report>>,
    mut leader: watch::Receiver<bool>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    // What we wrote, or found to be right already.
    let mut written: BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>> = BTreeMap::new();
    loop {
        let mut again = false;
        if *leader.borrow_and_update() {
            let current = report.borrow_and_update().clone();
            if let Some(current) = current {
                again = write_all(&client, &settings, &current, &mut written, &metrics, &shutdown).await;
            }
        } else {
            written.clear();
        }
        let wait = if again { RETRY } else { Duration::from_secs(3600) };
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = report.changed() => if changed.is_err() { break },
            changed = leader.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(wait) => {}
        }
    }
    if settings.clear_on_shutdown && *leader.borrow() {
        for key in written.keys() {
            write(&client, key, &[], &metrics).await;
        }
    }
}

/// Brings every status to what it should be; says whether something has to be tried again.
async fn write_all(
    client: &Client,
    settings: &Settings,
    report: &Report,
    written: &mut BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> bool {
    let Some(addresses) = current_addresses(client, settings, report).await else { return true };
    let mut again = false;
    for (key, current) in &report.claimed {
        if shutdown.is_cancelled() {
            return false;
        }
        let right = *current == addresses || (written.get(key) == Some(&addresses) && current.is_empty());
        if !right {
            match write(client, key, &addresses, metrics).await {
                true => drop(written.insert(key.clone(), addresses.clone())),
                false => again = true,
            }
        } else {
            written.entry(key.clone()).or_insert_with(|| addresses.clone());
        }
    }
    // An Ingress that moved to another class is not ours to advertise any more.
    let gone: BTreeSet<ObjectKey> = written.keys().filter(|key| !report.claimed.contains_key(key)).cloned().collect();
    for key in gone {
        written.remove(&key);
        write(client, &key, &[], metrics).await;
    }
    again
}

async fn current_addresses(client: &Client, settings: &Settings, report: &Report) -> Option<Vec<IngressLoadBalancerIngress>> {
    match &settings.addresses {
        Addresses::Service => Some(report.service_addresses.clone()),
        Addresses::Given(given) => Some(given.iter().map(|address| address_or_name(address)).collect()),
        Addresses::Node(name) => {
            let node = tokio::time::timeout(WRITE_TIMEOUT, Api::<Node>::all(client.clone()).get(name)).await;
            match node {
                Ok(Ok(node)) => Some(node_addresses(&node)),
                failed => {
                    let error = failed.map(|failed| failed.err());
                    tracing::warn!(node = name, ?error, "node cannot be read, so no status is written");
                    None
                }
            }
        }
    }
}

fn address_or_name(text: &str) -> IngressLoadBalancerIngress {
    let is_ip = text.parse::<std::net::IpAddr>().is_ok();
    IngressLoadBalancerIngress {
        ip: is_ip.then(|| text.to_owned()),
        hostname: (!is_ip).then(|| text.to_owned()),
        ports: None,
    }
}

fn node_addresses(node: &Node) -> Vec<IngressLoadBalancerIngress> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let of = |kind: &str| addresses.iter().filter(|address| address.type_ == kind).map(|a| address_or_name(&a.address)).collect::<Vec<_>>();
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

/// Writes one status; says whether it is settled (an Ingress that is gone is).
async fn write(client: &Client, key: &ObjectKey, addresses: &[IngressLoadBalancerIngress], metrics: &Metrics) -> bool {
    let api: Api<Ingress> = Api::namespaced(client.clone(), &key.namespace);
    let ingress = if addresses.is_empty() { json!(null) } else { json!(addresses) };
    let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    let params = PatchParams::default();
    let result = tokio::time::timeout(WRITE_TIMEOUT, api.patch_status(&key.name, &params, &patch)).await;
    let (label, settled) = match &result {
        Ok(Ok(_)) => ("ok", true),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => ("gone", true),
        Ok(Err(error)) => {
            tracing::warn!(ingress = %key, %error, "status was not written");
            ("error", false)
        }
        Err(_) => ("timeout", false),
    };
    metrics.status_writes.with_label_values(&[label]).inc();
    settled
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::Value;

    fn addresses(service: Value) -> Vec<String> {
        let service: Service = serde_json::from_value(service).unwrap();
        addresses_of(&service).into_iter().map(|one| one.ip.or(one.hostname).unwrap()).collect()
    }

    #[test]
    fn a_service_is_reached_at_its_load_balancer_first() {
        let balancer = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]}});
        assert_eq!(addresses(json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}, "status": balancer})), ["192.0.2.1", "lb.test"]);
        assert_eq!(addresses(json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}})), [""; 0]);
        assert_eq!(addresses(json!({"spec": {"externalIPs": ["192.0.2.9"], "clusterIP": "10.0.0.1"}})), ["192.0.2.9"]);
        assert_eq!(addresses(json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}})), ["10.0.0.1"]);
        assert_eq!(addresses(json!({"spec": {"clusterIP": "None"}})), [""; 0]);
    }

    #[test]
    fn given_addresses_are_ips_or_names() {
        assert_eq!(address_or_name("192.0.2.1").ip.as_deref(), Some("192.0.2.1"));
        assert_eq!(address_or_name("lb.test").hostname.as_deref(), Some("lb.test"));
    }

    #[test]
    fn a_node_is_reached_at_its_external_address_first() {
        let node = |addresses: Value| serde_json::from_value::<Node>(json!({"status": {"addresses": addresses}})).unwrap();
        let internal = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let external = json!({"type": "ExternalIP", "address": "192.0.2.1"});
        assert_eq!(node_addresses(&node(json!([internal, external])))[0].ip.as_deref(), Some("192.0.2.1"));
        assert_eq!(node_addresses(&node(json!([internal])))[0].ip.as_deref(), Some("10.0.0.1"));
    }
}
