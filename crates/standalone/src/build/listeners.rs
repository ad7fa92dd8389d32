//! Listeners: addresses, certificates by server name, relays.

use super::backends::Backends;
use super::filters::networks;
use super::routes::{HostSets, host, speaks_http};
use super::{Context, Failure, NAMESPACE};
use crate::certificate;
use crate::config::{CertificateConfig, Config, ListenerConfig, Protocol};
use crate::problem::{Step, Wrong, printable, steps};
use certificates::{covers, names};
use routing_table::filter::AccessList;
use routing_table::{
    HostMatch, Listener, ListenerId, ListenerProtocol, Relay, RelayIndex, RelayLimits, RouteId,
    RoutingTable, SniIndex, TlsSettings, VirtualHosts, overlap,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

impl ListenerConfig {
    /// The name it has or gets.
    pub(super) fn shown_name(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Http => "http",
            Protocol::Https => "https",
            Protocol::Tcp => "tcp",
            Protocol::TlsPassthrough => "tls-passthrough",
        };
        match &self.name {
            Some(name) => name.clone(),
            None => format!("{protocol}-{}", self.port),
        }
    }
}

pub(super) fn build(
    context: &Context<'_>,
    backends: &Backends,
    hosts: &mut HostSets,
    files: &mut Vec<PathBuf>,
) -> Result<Vec<Listener>, Failure> {
    let all = &context.config.listeners;
    if all.is_empty() {
        let message = "the list is empty: nothing would be served";
        return Err(Wrong::at(&steps!["listeners"], message).into());
    }
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut out = Vec::new();
    for (index, config) in all.iter().enumerate() {
        let at = steps!["listeners", index];
        let below = |key: &str| [&at[..], &steps![key]].concat();
        let name = config.shown_name();
        if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
            let message = "a name has 1 to 63 characters, none of them a control";
            return Err(Wrong::at(&below("name"), message).into());
        }
        if let Some(first) = known.insert(name.clone(), index) {
            let key = if config.name.is_some() {
                "name"
            } else {
                "port"
            };
            let message = format!(
                "listeners[{first}] is named {name} already; give one of them another name"
            );
            return Err(Wrong::at(&below(key), message).into());
        }
        let addr = address(config, &at)?;
        let clash = addresses.iter().position(|first| overlap(*first, addr));
        if let Some(first) = clash {
            let message = match addresses[first] {
                same if same == addr => format!("listeners[{first}] listens on {addr} already"),
                wider => format!(
                    "listeners[{first}] listens on {wider} already, which leaves no room for {addr}"
                ),
            };
            return Err(Wrong::at(&below("port"), message).into());
        }
        addresses.push(addr);
        check_keys(config, &at)?;
        let virtual_hosts = if speaks_http(config.protocol) {
            hosts.of(&name, context.config)?
        } else {
            Arc::new(VirtualHosts::default())
        };
        let protocol = match config.protocol {
            Protocol::Http => ListenerProtocol::Http,
            Protocol::Https | Protocol::TlsPassthrough => {
                let mut settings = tls_settings(context, &config.tls, &below("tls"), files)?;
                settings.passthrough = passthrough(backends, config, &name, &at)?;
                ListenerProtocol::Https(Arc::new(settings))
            }
            Protocol::Tcp => {
                let wanted = config.backend.as_deref();
                let backend = wanted.ok_or_else(|| {
                    Wrong::at(
                        &at,
                        "the key \"backend\" is missing: where do connections go?",
                    )
                })?;
                let found = backends.find(backend, &below("backend"))?;
                ListenerProtocol::Tcp(Arc::new(Relay {
                    id: relay_id(&name, "backend"),
                    cluster: found.cluster,
                    limits: limits(config),
                    proxy_header: None,
                    access: access(config, &at)?,
                }))
            }
        };
        out.push(Listener {
            id: ListenerId::new(&name),
            addr,
            protocol,
            proxy_header: false,
            virtual_hosts,
        });
    }
    Ok(out)
}

fn address(config: &ListenerConfig, at: &[Step]) -> Result<SocketAddr, Wrong> {
    let ip = match &config.address {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text.trim().parse().map_err(|_| {
            let message = format!(
                "\"{}\" is no IP address, such as 0.0.0.0 or ::1",
                printable(text)
            );
            Wrong::at(&[at, &steps!["address"]].concat(), message)
        })?,
    };
    if config.port == 0 {
        return Err(Wrong::at(
            &[at, &steps!["port"]].concat(),
            "0 is no port to listen on",
        ));
    }
    Ok(SocketAddr::new(ip, config.port))
}

/// Keys that another protocol has.
fn check_keys(config: &ListenerConfig, at: &[Step]) -> Result<(), Wrong> {
    let protocol = config.protocol;
    let tls = matches!(protocol, Protocol::Https | Protocol::TlsPassthrough);
    for (key, given, fine, what) in [
        (
            "tls",
            !config.tls.is_empty(),
            protocol == Protocol::Https,
            "protocol https",
        ),
        (
            "passthrough",
            !config.passthrough.is_empty(),
            tls,
            "protocols tls-passthrough and https",
        ),
        (
            "backend",
            config.backend.is_some(),
            protocol == Protocol::Tcp,
            "protocol tcp; of http, routes have backends",
        ),
        (
            "idleTimeout",
            config.idle_timeout.is_some(),
            protocol != Protocol::Http,
            "what is passed on without being understood",
        ),
        (
            "deny",
            !config.deny.is_empty(),
            protocol == Protocol::Tcp || !config.passthrough.is_empty(),
            "what is passed on without being understood; of http, routes have it",
        ),
        (
            "allow",
            !config.allow.is_empty(),
            protocol == Protocol::Tcp || !config.passthrough.is_empty(),
            "what is passed on without being understood; of http, routes have it",
        ),
    ] {
        if given && !fine {
            let message = format!("this key is for {what}");
            return Err(Wrong::at(&[at, &steps![key]].concat(), message));
        }
    }
    let missing = match protocol {
        Protocol::Https if config.tls.is_empty() => "tls",
        Protocol::TlsPassthrough if config.passthrough.is_empty() => "passthrough",
        _ => return Ok(()),
    };
    Err(Wrong::at(
        at,
        format!("the key \"{missing}\" is missing, or its list is empty"),
    ))
}

fn tls_settings(
    context: &Context<'_>,
    all: &[CertificateConfig],
    at: &[Step],
    files: &mut Vec<PathBuf>,
) -> Result<TlsSettings, Failure> {
    let mut settings = TlsSettings::default();
    let mut index_of = SniIndex::default();
    let mut seen: BTreeMap<HostMatch, usize> = BTreeMap::new();
    for (index, config) in all.iter().enumerate() {
        let at = [at, &steps![index]].concat();
        let mut names = Vec::new();
        for (number, text) in config.hosts.iter().enumerate() {
            names.push(host(text, &[&at[..], &steps!["hosts", number]].concat())?);
        }
        if names.is_empty() {
            names.push(HostMatch::Any);
        }
        for name in &names {
            if let Some(first) = seen.insert(name.clone(), index) {
                let message = format!("[{first}] is the certificate of {name} already");
                return Err(Wrong::at(&at, message).into());
            }
        }
        if !context.read_files {
            continue;
        }
        let chain = context.base.join(&config.certificate);
        let key = context.base.join(&config.key);
        files.extend([chain.clone(), key.clone()]);
        let certificate = certificate::read_pair(&chain, &key)
            .map_err(|message| Failure::File(Wrong::at(&at, message)))?;
        let certificate = Arc::new(certificate);
        for name in &names {
            match name {
                HostMatch::Any => settings.default_certificate = Some(Arc::clone(&certificate)),
                name => drop(index_of.add(name, &certificate)),
            }
        }
    }
    settings.certificates = index_of;
    Ok(settings)
}

fn passthrough(
    backends: &Backends,
    config: &ListenerConfig,
    listener: &str,
    at: &[Step],
) -> Result<RelayIndex, Wrong> {
    let mut relays = RelayIndex::default();
    let access = access(config, at)?;
    for (index, one) in config.passthrough.iter().enumerate() {
        let at = [at, &steps!["passthrough", index]].concat();
        let found = backends.find(&one.backend, &[&at[..], &steps!["backend"]].concat())?;
        if one.hosts.is_empty() {
            let at = [&at[..], &steps!["hosts"]].concat();
            return Err(Wrong::at(&at, "the list is empty"));
        }
        for (number, text) in one.hosts.iter().enumerate() {
            let at = [&at[..], &steps!["hosts", number]].concat();
            let name = host(text, &at)?;
            let relay = Relay {
                id: relay_id(listener, &format!("passthrough[{index}]")),
                cluster: found.cluster,
                limits: limits(config),
                proxy_header: None,
                access: access.clone(),
            };
            if name == HostMatch::Any {
                return Err(Wrong::at(&at, "a server name is needed; \"*\" is none"));
            }
            if !relays.add(&name, relay) {
                return Err(Wrong::at(&at, format!("{name} is passed on already")));
            }
        }
    }
    Ok(relays)
}

fn relay_id(listener: &str, rule: &str) -> RouteId {
    RouteId {
        kind: "Listener",
        namespace: NAMESPACE.into(),
        name: listener.into(),
        rule: rule.into(),
    }
}

fn access(config: &ListenerConfig, at: &[Step]) -> Result<AccessList, Wrong> {
    let below = |key: &str| [at, &steps![key]].concat();
    Ok(AccessList {
        deny: networks(&config.deny, &below("deny"))?,
        allow: networks(&config.allow, &below("allow"))?,
    })
}

fn limits(config: &ListenerConfig) -> RelayLimits {
    let usual = RelayLimits::TCP;
    RelayLimits {
        idle: config
            .idle_timeout
            .as_ref()
            .map_or(usual.idle, |span| *span.get()),
        ..usual
    }
}

/// Certificates that are served for hosts they are not for. Listeners of the table are in the order of the file.
pub(super) fn warnings(config: &Config, table: &RoutingTable) -> Vec<Wrong> {
    let mut warnings = Vec::new();
    let listeners = config.listeners.iter().zip(table.listeners());
    for (index, (config, listener)) in listeners.enumerate() {
        let ListenerProtocol::Https(settings) = &listener.protocol else {
            continue;
        };
        for (host, certificate) in settings.certificates.iter() {
            if covers(&names(&certificate.chain), &host) {
                continue;
            }
            let is_it = |text: &String| HostMatch::parse(text).is_ok_and(|one| one == host);
            let entry = config
                .tls
                .iter()
                .position(|one| one.hosts.iter().any(is_it));
            let at = steps!["listeners", index, "tls", entry.unwrap_or_default()];
            let message = format!(
                "the certificate {} is not for {host}; it is served all the same, and clients refuse it",
                certificate.source
            );
            warnings.push(Wrong::at(&at, message));
        }
    }
    warnings
}
