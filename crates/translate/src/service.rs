//! A Service and its EndpointSlices become a cluster and its endpoints.

use crate::diagnostic::Findings;
use crate::dns;
use crate::policies::Policies;
use crate::settings::Settings;
use crate::snapshot::{Kind, ObjectKey, ObjectRef, Snapshot};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint as SliceEndpoint, EndpointConditions, EndpointSlice,
};
use k8s_openapi::api::networking::v1::IngressServiceBackend;
use policy::PolicySpec;
use routing_table::{Cluster, ClusterId, Endpoint, Serving, Transport, UpstreamProtocol};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Why a backend cannot be forwarded to.
#[derive(Debug)]
pub(crate) struct BackendError {
    /// For the diagnostic.
    pub(crate) reason: &'static str,
    /// For the access log of the 503s it causes.
    pub(crate) flag: &'static str,
    /// A sentence without its end, which says what becomes of the requests.
    pub(crate) message: String,
}

/// What clusters are made of.
#[derive(Clone, Copy)]
pub(crate) struct Services<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) settings: &'a Settings,
    pub(crate) declared: &'a Policies,
}

impl Services<'_> {
    /// The cluster for a Service of this namespace, and what is declared for it, which is its policy already. For a backend of an Ingress that is always the Ingress's own.
    pub(crate) fn cluster(
        self,
        namespace: &str,
        backend: &IngressServiceBackend,
        transport: Transport,
    ) -> Result<(Cluster, PolicySpec), BackendError> {
        let Self {
            snapshot,
            settings,
            declared,
        } = self;
        let error = |reason, flag, message| {
            Err(BackendError {
                reason,
                flag,
                message,
            })
        };
        let key = ObjectKey::new(namespace, &backend.name);
        let Some(service) = snapshot.services.get(&key) else {
            return error(
                "BackendNotFound",
                "backend_not_found",
                format!("Service {key} does not exist"),
            );
        };
        let spec = service.spec.as_ref();
        let is_external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
        if is_external && !settings.external_name {
            let message = format!("Service {key} is of type ExternalName, which is refused");
            return error("ExternalNameRefused", "external_name", message);
        }
        let wanted = backend.port.as_ref();
        let by_name = wanted.and_then(|port| port.name.as_deref());
        let by_number = wanted.and_then(|port| port.number);
        let named = |port: &&ServicePort| match by_name {
            Some(name) => port.name.as_deref() == Some(name),
            None => Some(port.port) == by_number,
        };
        // The same number may be there for both transports.
        let mut fitting = ports(service).iter().filter(named);
        let found = fitting
            .clone()
            .find(|port| is_of(port.protocol.as_deref(), transport))
            .or_else(|| fitting.next());
        // An external Service need not list its ports: what is connected to is the port that is named here.
        let unlisted = by_number
            .filter(|_| is_external && ports(service).is_empty())
            .map(|port| ServicePort {
                port,
                protocol: Some(transport.as_str().to_owned()),
                ..ServicePort::default()
            });
        let Some(port) = found.or(unlisted.as_ref()) else {
            let message = match (by_name, by_number) {
                (Some(name), _) => format!("Service {key} has no port {name:?}"),
                (None, Some(number)) => format!("Service {key} has no port {number}"),
                (None, None) => {
                    format!("the port of Service {key} has neither a name nor a number")
                }
            };
            return error("PortNotFound", "port_not_found", message);
        };
        if !is_of(port.protocol.as_deref(), transport) {
            let (number, wanted) = (port.port, transport.as_str());
            let message = match port.protocol.as_deref() {
                Some(written) if written.eq_ignore_ascii_case(wanted) => format!(
                    "port {number} of Service {key} has the protocol {written:?}, which is written {wanted}"
                ),
                _ => format!("port {number} of Service {key} is not {wanted}"),
            };
            return error("UnsupportedProtocol", "unsupported_protocol", message);
        }
        let discovery = match dns::discovery(service, port, transport, settings) {
            Ok(discovery) => discovery,
            Err(message) => {
                let message = format!("Service {key} {message}");
                return error("UnusableDiscovery", "unusable_discovery", message);
            }
        };
        let Ok(number) = u16::try_from(port.port) else {
            return error(
                "PortNotFound",
                "port_not_found",
                format!("port {} of Service {key} is no port number", port.port),
            );
        };
        let spec = declared.of(&key, port.name.as_deref());
        let cluster = Cluster {
            id: ClusterId {
                transport,
                ..ClusterId::new(namespace, &backend.name, number)
            },
            protocol: match port.app_protocol.as_deref() {
                // KEP-3726.
                Some("kubernetes.io/h2c") => UpstreamProtocol::Http2,
                _ => UpstreamProtocol::Http1,
            },
            tls: None,
            discovery,
            policy: Arc::new(spec.build().0.policy),
            proxy_header: None,
        };
        Ok((cluster, spec))
    }
}

/// Whether a port is one of this transport. ServicePort.protocol: "Default is TCP".
fn is_of(protocol: Option<&str>, transport: Transport) -> bool {
    protocol.unwrap_or("TCP") == transport.as_str()
}

fn ports(service: &Service) -> &[ServicePort] {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default()
}

/// The endpoints of a cluster: all slices merged, each address once, sorted.
pub(crate) fn endpoints(
    snapshot: &Snapshot,
    settings: &Settings,
    cluster: &ClusterId,
    findings: &mut Findings,
) -> Vec<Endpoint> {
    let key = ObjectKey::new(&cluster.namespace, &cluster.service);
    let (Some(service), Some(slices)) = (
        snapshot.services.get(&key),
        snapshot.endpoint_slices.get(&key),
    ) else {
        return Vec::new();
    };
    let Some(port) = ports(service).iter().find(|port| {
        port.port == i32::from(cluster.port) && is_of(port.protocol.as_deref(), cluster.transport)
    }) else {
        return Vec::new();
    };
    let mut merged: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for slice in slices.values() {
        for endpoint in slice_endpoints(
            slice,
            port.name.as_deref().unwrap_or_default(),
            cluster.transport,
            settings,
            findings,
        ) {
            match merged.entry(endpoint.addr) {
                Entry::Vacant(entry) => drop(entry.insert(endpoint)),
                Entry::Occupied(mut known) if endpoint.serving < known.get().serving => {
                    known.insert(endpoint);
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    merged.into_values().collect()
}

fn slice_endpoints(
    slice: &EndpointSlice,
    port_name: &str,
    transport: Transport,
    settings: &Settings,
    findings: &mut Findings,
) -> Vec<Endpoint> {
    let object = ObjectRef {
        kind: Kind::EndpointSlice,
        key: ObjectKey::of(&slice.metadata),
        uid: slice.metadata.uid.clone().unwrap_or_default(),
    };
    let mut invalid =
        |field: &str, message: String| findings.error(&object, field, "InvalidEndpoint", message);
    let v6 = match slice.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            invalid(
                "addressType",
                format!("address type {other:?} is not used; the slice was ignored"),
            );
            return Vec::new();
        }
    };
    // The slice's port belongs to the Service's port of the same name; its number may differ from slice to slice, which is
    // how a named targetPort works.
    let named = |port: &&k8s_openapi::api::discovery::v1::EndpointPort| {
        port.name.as_deref().unwrap_or_default() == port_name
            && is_of(port.protocol.as_deref(), transport)
    };
    let Some(port) = slice.ports.iter().flatten().find(named) else {
        return Vec::new();
    };
    let Some(port) = port
        .port
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
    else {
        invalid(
            "ports",
            format!("port {port_name:?} has no usable number; the slice was ignored"),
        );
        return Vec::new();
    };
    let mut out = Vec::new();
    let mut refused = Vec::new();
    for endpoint in &slice.endpoints {
        let Some(serving) = serving(endpoint.conditions.as_ref()) else {
            continue;
        };
        let zone = endpoint.zone.as_deref().map(Arc::from);
        let for_zones = hinted(endpoint);
        for address in &endpoint.addresses {
            match address.parse::<IpAddr>() {
                Ok(ip) if ip.is_ipv6() == v6 && is_usable(ip, settings.local_endpoints) => {
                    out.push(Endpoint {
                        zone: zone.clone(),
                        for_zones: for_zones.clone(),
                        ..Endpoint::new(SocketAddr::new(ip, port), serving)
                    });
                }
                _ => refused.push(address.as_str()),
            }
        }
    }
    if !refused.is_empty() {
        let shown = refused
            .iter()
            .take(5)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!(
            "{} address(es) cannot be endpoints and were ignored: {shown}",
            refused.len()
        );
        invalid("endpoints", message);
    }
    out
}

/// EndpointHints: "the zone(s) this endpoint should be consumed by"; nobody in particular where there are none.
fn hinted(endpoint: &SliceEndpoint) -> Option<Arc<[Arc<str>]>> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_deref()?;
    let mut names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.into_iter().map(Arc::from).collect())
}

/// EndpointConditions: "ready: [...] nil should be interpreted as true"; "serving: [...] nil: consumers should defer to the
/// ready condition". Terminating but serving is kept for when nothing else is ready (KEP-1669).
fn serving(conditions: Option<&EndpointConditions>) -> Option<Serving> {
    let Some(conditions) = conditions else {
        return Some(Serving::Ready);
    };
    if conditions.ready.unwrap_or(true) {
        return Some(Serving::Ready);
    }
    let terminating = conditions.terminating.unwrap_or(false);
    (terminating && conditions.serving.unwrap_or(false)).then_some(Serving::Draining)
}

/// Addresses that a cluster may name as endpoints: never ourselves, the node or the metadata service.
fn is_usable(ip: IpAddr, local: bool) -> bool {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return false;
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    local || !(ip.is_loopback() || link_local)
}
