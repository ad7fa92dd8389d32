//! Services whose endpoints the DNS knows: headless ones that ask for it, and those of type ExternalName.
//!
//! EndpointSlices stay the default: they come at once and say more. SRV records give weights and priorities where somebody
//! else's DNS has them.

use crate::annotation::PREFIX;
use crate::settings::Settings;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use routing_table::{Discovery, DnsQuery, DnsSource, Transport, is_dns_name};
use std::sync::Arc;

/// The annotation of a Service.
pub(crate) const DISCOVERY: &str = "discovery";

/// Who owns the endpoints of a Service's port.
///
/// `tidegate.dev/discovery: srv` on the Service means `_port._proto.name`, as the DNS specification of Kubernetes has it for
/// named ports of headless Services; of an ExternalName Service, below its external name.
///
/// # Errors
/// When it asks for what it cannot have: the end of a sentence that begins with the Service.
pub(crate) fn discovery(
    service: &Service,
    port: &ServicePort,
    transport: Transport,
    settings: &Settings,
) -> Result<Discovery, String> {
    let key = format!("{PREFIX}{DISCOVERY}");
    let annotations = service.metadata.annotations.as_ref();
    let wanted = annotations
        .and_then(|all| all.get(&key))
        .map(|value| value.trim());
    let by_srv = match wanted {
        None | Some("endpoint-slices") => false,
        Some("srv") => true,
        Some(other) => {
            let shown = crate::diagnostic::printable(other, 64);
            return Err(format!(
                "has {key}: {shown:?}, which is neither `srv` nor `endpoint-slices`"
            ));
        }
    };
    let spec = service.spec.as_ref();
    let external = spec
        .filter(|spec| spec.type_.as_deref() == Some("ExternalName"))
        .map(|spec| spec.external_name.as_deref().unwrap_or_default());
    let name = match external {
        Some(name) => {
            let name = name.trim_end_matches('.');
            if !is_name(name) {
                return Err("has an externalName that is no name of the DNS".to_owned());
            }
            name.to_ascii_lowercase()
        }
        None if !by_srv => return Ok(Discovery::EndpointSlices),
        None => {
            if spec.and_then(|spec| spec.cluster_ip.as_deref()) != Some("None") {
                return Err(format!(
                    "has {key}: srv but is not headless (clusterIP: None), so the DNS has no record for each endpoint"
                ));
            }
            let metadata = &service.metadata;
            let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
            format!(
                "{}.{}.svc.{}",
                name.unwrap_or_default(),
                namespace.unwrap_or_default(),
                settings.cluster_domain
            )
        }
    };
    let query = if by_srv {
        let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) else {
            return Err(format!(
                "has {key}: srv, but its port {} has no name, and so no SRV record",
                port.port
            ));
        };
        let protocol = match transport {
            Transport::Tcp => "_tcp",
            Transport::Udp => "_udp",
        };
        DnsQuery::Srv(format!("_{port_name}.{protocol}.{name}.").into())
    } else {
        let number = u16::try_from(port.port)
            .map_err(|_| format!("has the port {}, which is no port number", port.port))?;
        DnsQuery::Address(format!("{name}.").into(), number)
    };
    Ok(Discovery::Dns(Arc::new(DnsSource {
        query,
        resolvers: settings.dns_resolvers.clone(),
        any_address: settings.local_endpoints,
    })))
}

/// Whether it is a name of hosts (RFC 1123 section 2.1), and no address.
fn is_name(name: &str) -> bool {
    is_dns_name(name) && name.parse::<std::net::IpAddr>().is_err()
}
