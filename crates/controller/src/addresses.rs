//! What Services and nodes are reached at, as it stands in the status of an Ingress. Pure.

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::IngressLoadBalancerIngress;

/// What stands in a status.
pub(crate) type Status = Vec<IngressLoadBalancerIngress>;

/// What a Service is reached at: its load balancer, else its external addresses, else its cluster address.
pub(crate) fn of_service(service: &Service) -> Status {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|lb| lb.ingress.as_ref());
    let ip = |ip: &String| IngressLoadBalancerIngress {
        ip: Some(ip.clone()),
        ..IngressLoadBalancerIngress::default()
    };
    if let Some(ingress) = balancer.filter(|ingress| !ingress.is_empty()) {
        return ingress
            .iter()
            .map(|one| IngressLoadBalancerIngress {
                ip: one.ip.clone(),
                hostname: one.hostname.clone(),
                ports: None,
            })
            .collect();
    }
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    if let Some(external) = spec.external_ips.as_ref().filter(|ips| !ips.is_empty()) {
        return external.iter().map(ip).collect();
    }
    // A load balancer that has no address yet will have one; until then the cluster address would be wrong.
    if spec.type_.as_deref() == Some("LoadBalancer") {
        return Vec::new();
    }
    spec.cluster_ip
        .iter()
        .filter(|address| !address.is_empty() && *address != "None")
        .map(ip)
        .collect()
}

/// An address, whichever of the two it is.
pub(crate) fn address_or_name(text: &str) -> IngressLoadBalancerIngress {
    let is_ip = text.parse::<std::net::IpAddr>().is_ok();
    IngressLoadBalancerIngress {
        ip: is_ip.then(|| text.to_owned()),
        hostname: (!is_ip).then(|| text.to_owned()),
        ports: None,
    }
}

/// What a node is reached at: its external addresses, else its internal ones.
pub(crate) fn of_node(node: &Node) -> Status {
    let addresses = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    let of = |kind: &str| {
        addresses
            .iter()
            .filter(|address| address.type_ == kind)
            .map(|a| address_or_name(&a.address))
            .collect::<Vec<_>>()
    };
    let external = of("ExternalIP");
    if external.is_empty() {
        of("InternalIP")
    } else {
        external
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::{Value, json};

    fn addresses(service: Value) -> Vec<String> {
        let service: Service = serde_json::from_value(service).unwrap();
        of_service(&service)
            .into_iter()
            .map(|one| one.ip.or(one.hostname).unwrap())
            .collect()
    }

    #[test]
    fn a_service_is_reached_at_its_load_balancer_first() {
        let balancer =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]}});
        assert_eq!(
            addresses(
                json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}, "status": balancer})
            ),
            ["192.0.2.1", "lb.test"]
        );
        assert_eq!(
            addresses(json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}})),
            [""; 0]
        );
        assert_eq!(
            addresses(json!({"spec": {"externalIPs": ["192.0.2.9"], "clusterIP": "10.0.0.1"}})),
            ["192.0.2.9"]
        );
        assert_eq!(
            addresses(json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}})),
            ["10.0.0.1"]
        );
        assert_eq!(addresses(json!({"spec": {"clusterIP": "None"}})), [""; 0]);
    }

    #[test]
    fn given_addresses_are_ips_or_names() {
        assert_eq!(
            address_or_name("192.0.2.1").ip.as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(
            address_or_name("lb.test").hostname.as_deref(),
            Some("lb.test")
        );
    }

    #[test]
    fn a_node_is_reached_at_its_external_address_first() {
        let node = |addresses: Value| {
            serde_json::from_value::<Node>(json!({"status": {"addresses": addresses}})).unwrap()
        };
        let internal = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let external = json!({"type": "ExternalIP", "address": "192.0.2.1"});
        assert_eq!(
            of_node(&node(json!([internal, external])))[0].ip.as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(
            of_node(&node(json!([internal])))[0].ip.as_deref(),
            Some("10.0.0.1")
        );
    }
}
