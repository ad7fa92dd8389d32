//! Ports that are relayed without being understood: ingress-nginx's `tcp-services` and `udp-services`.
//!
//! A ConfigMap that a flag names has a port for each key, and `namespace/service:port` as the value; for TCP `:PROXY` after
//! it takes a header of the PROXY protocol, and a second one sends one. Whoever may write that ConfigMap may open ports and
//! reach the Services of every namespace that is watched, so it belongs to the administrator of the cluster.

use crate::diagnostic::{Findings, printable};
use crate::service::Services;
use crate::snapshot::{Kind, ObjectKey, ObjectRef};
use k8s_openapi::api::networking::v1::{IngressServiceBackend, ServiceBackendPort};
use routing_table::filter::AccessList;
use routing_table::{
    ClusterSet, EndpointSets, Listener, ListenerId, ListenerProtocol, ProxyVersion, Relay, RouteId,
    Transport, VirtualHosts,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Longest value that is looked at, in bytes.
const MAX_VALUE: usize = 1024;

/// A listener with the entry it was made from.
pub(crate) struct RelayedPort {
    pub(crate) listener: Listener,
    relay: Arc<Relay>,
    object: ObjectRef,
    field: String,
}

/// A value, read.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    namespace: &'a str,
    service: &'a str,
    port: &'a str,
    /// Connections begin with a PROXY header.
    decode: bool,
    /// Connections to endpoints do.
    encode: bool,
}

/// The listeners of both ConfigMaps; what is wrong with an entry costs that entry.
pub(crate) fn listeners(
    services: Services<'_>,
    clusters: &mut ClusterSet,
    findings: &mut Findings,
) -> Vec<RelayedPort> {
    let Services {
        snapshot, settings, ..
    } = services;
    let mut out = Vec::new();
    let both = [
        (&settings.tcp_services, Transport::Tcp),
        (&settings.udp_services, Transport::Udp),
    ];
    for (key, transport) in both {
        let Some(key) = key else { continue };
        let Some(config_map) = snapshot.config_maps.get(key) else {
            let message = format!(
                "the ConfigMap of {} services does not exist; none is served",
                transport.as_str()
            );
            findings.warning(&object(key, None), "", "ConfigMapNotFound", message);
            continue;
        };
        let object = object(key, config_map.metadata.uid.as_deref());
        for (port, value) in config_map.data.iter().flatten() {
            let field = format!("data[{}]", printable(port, 32));
            let made = listener(services, clusters, transport, &object, port, value);
            match made {
                Ok((listener, relay)) => out.push(RelayedPort {
                    listener,
                    relay,
                    object: object.clone(),
                    field,
                }),
                Err((reason, message)) => {
                    let message = format!("{message}; the port is not served");
                    findings.error(&object, &field, reason, message);
                }
            }
        }
    }
    // By number, not as text.
    out.sort_by_key(|port| {
        let udp = matches!(port.listener.protocol, ListenerProtocol::Udp(_));
        (udp, port.listener.addr.port())
    });
    out
}

fn object(key: &ObjectKey, uid: Option<&str>) -> ObjectRef {
    ObjectRef {
        kind: Kind::ConfigMap,
        key: key.clone(),
        uid: uid.unwrap_or_default().to_owned(),
    }
}

fn listener(
    services: Services<'_>,
    clusters: &mut ClusterSet,
    transport: Transport,
    object: &ObjectRef,
    port: &str,
    value: &str,
) -> Result<(Listener, Arc<Relay>), (&'static str, String)> {
    let settings = services.settings;
    let invalid = |message: String| ("InvalidEntry", message);
    let number = port_number(port)
        .ok_or_else(|| invalid(format!("{:?} is no port number", printable(port, 32))))?;
    let taken = [settings.http, settings.https];
    let mut taken = taken.into_iter().flatten().map(|addr| addr.port());
    if transport == Transport::Tcp
        && (taken.any(|taken| taken == number) || settings.reserved_ports.contains(&number))
    {
        let message = format!("port {number} is one of our own");
        return Err(("PortReserved", message));
    }
    let entry = read(value, transport).map_err(invalid)?;
    if entry.decode && !settings.proxy_header_believed {
        let message = "it asks for PROXY headers, and there is no network whose headers are \
                       believed (--proxy-protocol-from)";
        return Err(invalid(message.to_owned()));
    }
    let by_number = port_number(entry.port).map(i32::from);
    let backend = IngressServiceBackend {
        name: entry.service.to_owned(),
        port: Some(ServiceBackendPort {
            name: by_number.is_none().then(|| entry.port.to_owned()),
            number: by_number,
        }),
    };
    let (cluster, _) = services
        .cluster(entry.namespace, &backend, transport)
        .map_err(|error| (error.reason, error.message))?;
    let (name, limits) = match transport {
        Transport::Tcp => ("tcp", settings.tcp_limits),
        Transport::Udp => ("udp", settings.udp_limits),
    };
    let relay = Arc::new(Relay {
        id: RouteId {
            kind: "ConfigMap",
            namespace: object.key.namespace.as_str().into(),
            name: object.key.name.as_str().into(),
            rule: format!("data[{number}]").into(),
        },
        cluster: clusters.add(cluster),
        limits,
        // As ingress-nginx, which sends the text version on.
        proxy_header: entry.encode.then_some(ProxyVersion::V1),
        access: AccessList::default(),
    });
    let address = settings.http.or(settings.https).map(|addr| addr.ip());
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let listener = Listener {
        id: ListenerId::new(&format!("{name}-{number}")),
        addr: SocketAddr::new(address, number),
        protocol: match transport {
            Transport::Tcp => ListenerProtocol::Tcp(Arc::clone(&relay)),
            Transport::Udp => ListenerProtocol::Udp(Arc::clone(&relay)),
        },
        proxy_header: entry.decode,
        virtual_hosts: Arc::new(VirtualHosts::default()),
    };
    Ok((listener, relay))
}

/// A port by its number, in one spelling only.
fn port_number(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

fn read(value: &str, transport: Transport) -> Result<Entry<'_>, String> {
    let value = value.trim();
    let wrong = |why: &str| {
        Err(format!(
            "{:?} is not of the form namespace/service:port, with :PROXY after it where wanted: {why}",
            printable(value, 64)
        ))
    };
    if value.len() > MAX_VALUE {
        return wrong("it is too long");
    }
    let mut parts = value.split(':');
    let (service, port) = (parts.next().unwrap_or_default(), parts.next());
    let Some((namespace, service)) = service.split_once('/') else {
        return wrong("the namespace is missing");
    };
    if namespace.is_empty() || service.is_empty() || service.contains('/') {
        return wrong("that is no name of a Service");
    }
    let Some(port) = port.filter(|port| !port.is_empty()) else {
        return wrong("the port is missing");
    };
    let mut proxied = [false; 2];
    for flag in &mut proxied {
        *flag = match parts.next() {
            None | Some("") => false,
            Some(word) if word.eq_ignore_ascii_case("PROXY") => true,
            Some(_) => return wrong("after the port there can only be PROXY"),
        };
    }
    if parts.next().is_some() {
        return wrong("there is more than that");
    }
    let [decode, encode] = proxied;
    if transport == Transport::Udp && (decode || encode) {
        return wrong("the PROXY protocol is not for UDP");
    }
    Ok(Entry {
        namespace,
        service,
        port,
        decode,
        encode,
    })
}

/// The owner should know of a port that closes every connection.
pub(crate) fn warn_of_no_endpoints(
    ports: &[RelayedPort],
    clusters: &ClusterSet,
    endpoints: &EndpointSets,
    findings: &mut Findings,
) {
    for port in ports {
        let Some(cluster) = clusters.get(port.relay.cluster) else {
            continue;
        };
        if endpoints.get(&cluster.id).is_some_and(Vec::is_empty) {
            let message = format!(
                "Service {}/{} has no endpoint for port {}; nothing can be relayed",
                cluster.id.namespace, cluster.id.service, cluster.id.port
            );
            findings.warning(&port.object, &port.field, "NoEndpoints", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<(&str, &str, &str, bool, bool)>) {
        let read = read(value, Transport::Tcp).ok();
        let read = read.map(|e| (e.namespace, e.service, e.port, e.decode, e.encode));
        assert_eq!(read, expected, "{value:?}");
    }

    #[test]
    fn values() {
        check("shop/db:5432", Some(("shop", "db", "5432", false, false)));
        check(" shop/db:sql ", Some(("shop", "db", "sql", false, false)));
        check(
            "shop/db:5432:PROXY",
            Some(("shop", "db", "5432", true, false)),
        );
        check(
            "shop/db:5432::PROXY",
            Some(("shop", "db", "5432", false, true)),
        );
        check(
            "shop/db:5432:proxy:PROXY",
            Some(("shop", "db", "5432", true, true)),
        );
        for wrong in [
            "",
            "db:5432",
            "/db:5432",
            "shop/:5432",
            "shop/db",
            "shop/db:",
            "a/b/c:1",
            "shop/db:1:X",
            "shop/db:1:PROXY:PROXY:PROXY",
            "shop/db:1:PROXY:PROXY:",
        ] {
            check(wrong, None);
        }
        assert!(read("shop/dns:53:PROXY", Transport::Udp).is_err());
    }

    #[test]
    fn port_numbers_have_one_spelling() {
        assert_eq!(port_number("53"), Some(53));
        for wrong in ["", "0", "053", "+53", "65536", " 53", "http"] {
            assert_eq!(port_number(wrong), None, "{wrong:?}");
        }
    }
}
