//! The one rendering of a table for people: golden files, `tidegate translate` and `/debug/routes`.

use crate::cluster::{Discovery, ProxyVersion, UpstreamProtocol};
use crate::endpoint::{Endpoint, Serving};
use crate::filter::AccessList;
use crate::listener::{Listener, ListenerProtocol};
use crate::relay::{Relay, RelayLimits};
use crate::route::{Action, RetryPolicy, Route, Timeouts};
use crate::table::RoutingTable;
use crate::update::EndpointSets;
use crate::upstream_tls::UpstreamTls;
use std::fmt::{self, Write};

/// Renders a table and its endpoints; the same input gives the same text.
pub fn render(table: &RoutingTable, endpoints: &EndpointSets) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, table, endpoints);
    out
}

fn write_table(out: &mut String, table: &RoutingTable, endpoints: &EndpointSets) -> fmt::Result {
    let mut shown: Vec<&Listener> = Vec::new();
    for listener in table.listeners() {
        let proxied = if listener.proxy_header {
            " behind the PROXY protocol"
        } else {
            ""
        };
        match &listener.protocol {
            ListenerProtocol::Http => writeln!(
                out,
                "listener {} {} http{proxied}",
                listener.id, listener.addr
            )?,
            ListenerProtocol::Https(tls) => {
                writeln!(
                    out,
                    "listener {} {} https{proxied}",
                    listener.id, listener.addr
                )?;
                for (host, certificate) in tls.certificates.iter() {
                    writeln!(out, "  certificate {host}: {}", certificate.source)?;
                }
                match &tls.default_certificate {
                    Some(certificate) => {
                        writeln!(out, "  certificate default: {}", certificate.source)?
                    }
                    None => writeln!(out, "  certificate default: generated")?,
                }
                for (host, relay) in tls.passthrough.iter() {
                    write!(out, "  passthrough {host}")?;
                    write_relay(out, table, relay, RelayLimits::TCP)?;
                }
            }
            ListenerProtocol::Tcp(relay) => {
                write!(
                    out,
                    "listener {} {} tcp{proxied}",
                    listener.id, listener.addr
                )?;
                write_relay(out, table, relay, RelayLimits::TCP)?;
                continue;
            }
            ListenerProtocol::Udp(relay) => {
                write!(out, "listener {} {} udp", listener.id, listener.addr)?;
                write_relay(out, table, relay, RelayLimits::UDP)?;
                continue;
            }
        }
        if let Some(same) = shown
            .iter()
            .find(|other| other.virtual_hosts == listener.virtual_hosts)
        {
            writeln!(out, "  serves the same as {}", same.id)?;
            continue;
        }
        shown.push(listener);
        for (host, demand) in listener.virtual_hosts.demands() {
            let passed = if demand.pass_certificate {
                ", passed upstream"
            } else {
                ""
            };
            writeln!(
                out,
                "  client certificates {host}: {} ({}, depth {}{passed})",
                demand.demand, demand.authorities, demand.depth
            )?;
        }
        for (host, routes) in listener.virtual_hosts.iter() {
            writeln!(out, "  host {host}")?;
            for route in routes {
                let what = format!("{}{}", route.path, route.conditions);
                write_route(out, table, route, &what)?;
            }
        }
        if let Some(route) = listener.virtual_hosts.default_route() {
            writeln!(out, "  default")?;
            write_route(out, table, route, "any path")?;
        }
    }
    let mut clusters: Vec<_> = table.clusters().as_slice().iter().collect();
    clusters.sort_by(|a, b| a.id.cmp(&b.id));
    for cluster in clusters {
        write!(out, "cluster {}", cluster.id)?;
        // Where it is of an Ingress, it is part of the name.
        let policy = cluster.policy.to_string();
        if !policy.is_empty() && cluster.id.variant.is_none() {
            write!(out, " by {policy}")?;
        }
        out.push(':');
        if cluster.protocol == UpstreamProtocol::Http2 {
            write!(out, " HTTP/2")?;
        }
        match cluster.proxy_header {
            None => {}
            Some(ProxyVersion::V1) => write!(out, " PROXY v1")?,
            Some(ProxyVersion::V2) => write!(out, " PROXY v2")?,
        }
        let dns = cluster.discovery.dns();
        let known = endpoints.get(&cluster.id);
        for endpoint in known.into_iter().flatten() {
            write_endpoint(out, endpoint)?;
        }
        // What is merged says what else there may be.
        if known.is_none() || matches!(cluster.discovery, Discovery::Merged(_)) {
            for source in dns {
                write!(out, " {source}")?;
            }
        }
        if known.is_none_or(Vec::is_empty) && (dns.is_empty() || known.is_some()) {
            write!(out, " no endpoints")?;
        }
        writeln!(out)?;
        if let Some(tls) = &cluster.tls {
            write_tls(out, tls)?;
        }
    }
    Ok(())
}

/// An address, and what differs from the defaults.
fn write_endpoint(out: &mut String, endpoint: &Endpoint) -> fmt::Result {
    write!(out, " {}", endpoint.addr)?;
    if endpoint.weight != 1 {
        write!(out, " weight={}", endpoint.weight)?;
    }
    if endpoint.priority != 0 {
        write!(out, " priority={}", endpoint.priority)?;
    }
    if let Some(zone) = &endpoint.zone {
        write!(out, " zone={zone}")?;
    }
    for zone in endpoint.for_zones.iter().flat_map(|zones| zones.iter()) {
        write!(out, " for={zone}")?;
    }
    if let Some(most) = endpoint.max_requests {
        write!(out, " max={most}")?;
    }
    if endpoint.serving == Serving::Draining {
        write!(out, " (draining)")?;
    }
    Ok(())
}

fn write_tls(out: &mut String, tls: &UpstreamTls) -> fmt::Result {
    write!(out, "  TLS to {}", tls.server_name)?;
    if tls.send_server_name {
        write!(out, ", name sent")?;
    }
    for (addr, name) in &tls.own_names {
        write!(out, ", {addr} as {name}")?;
    }
    match &tls.verify {
        None => write!(out, ", not verified")?,
        Some(verify) => write!(
            out,
            ", verified by {} (depth {})",
            verify.authorities, verify.depth
        )?,
    }
    if let Some(own) = &tls.client_certificate {
        write!(out, ", shown {}", own.source)?;
    }
    match (tls.versions.tls12, tls.versions.tls13) {
        (true, false) => write!(out, ", 1.2 only")?,
        (false, true) => write!(out, ", 1.3 only")?,
        _ => {}
    }
    writeln!(out)
}

/// The rest of a line: where to, and what differs from the usual limits.
fn write_relay(
    out: &mut String,
    table: &RoutingTable,
    relay: &Relay,
    usual: RelayLimits,
) -> fmt::Result {
    match table.cluster(relay.cluster) {
        Some(cluster) => write!(out, " -> {}", cluster.id)?,
        None => write!(out, " -> ?")?,
    }
    match relay.proxy_header {
        None => {}
        Some(ProxyVersion::V1) => write!(out, " PROXY v1")?,
        Some(ProxyVersion::V2) => write!(out, " PROXY v2")?,
    }
    if relay.access != AccessList::default() {
        write!(out, " {}", relay.access)?;
    }
    let limits = &relay.limits;
    for (name, value, default) in [
        ("connect", limits.connect, usual.connect),
        ("idle", limits.idle, usual.idle),
    ] {
        if value != default {
            write!(out, " {name}={value:?}")?;
        }
    }
    if limits.most != usual.most {
        write!(out, " most={}", limits.most)?;
    }
    if let Some(count) = limits.responses {
        write!(out, " responses={count}")?;
    }
    if limits.close_with_endpoint {
        write!(out, " close-with-endpoint")?;
    }
    writeln!(out, "  [{}]", relay.id)
}

fn write_route(out: &mut String, table: &RoutingTable, route: &Route, path: &str) -> fmt::Result {
    write!(out, "    {path} -> ")?;
    match &route.action {
        Action::Forward(index) => match table.cluster(*index) {
            Some(cluster) => write!(out, "{}", cluster.id)?,
            None => write!(out, "?")?,
        },
        Action::Respond(response) => write!(out, "{} {}", response.status, response.reason)?,
    }
    for filter in &route.filters {
        write!(out, " {filter}")?;
    }
    let (timeouts, usual) = (&route.timeouts, Timeouts::default());
    for (name, value, default) in [
        ("connect", timeouts.connect, usual.connect),
        ("first-byte", timeouts.first_byte, usual.first_byte),
        ("idle", timeouts.idle, usual.idle),
    ] {
        if value != default {
            write!(out, " {name}={value:?}")?;
        }
    }
    if let Some(bytes) = route.limits.request_body {
        write!(out, " body<={bytes}")?;
    }
    if let Some(limit) = route.limits.in_flight {
        write!(
            out,
            " in-flight<={} queue<={} wait={:?}",
            limit.requests, limit.queue, limit.wait
        )?;
    }
    if route.retry != RetryPolicy::default() {
        write!(out, " attempts={}", route.retry.attempts)?;
        if route.retry.same_endpoint > 0 {
            let RetryPolicy {
                same_endpoint,
                pause,
                ..
            } = route.retry;
            write!(out, " again={same_endpoint} pause={pause:?}")?;
        }
    }
    writeln!(out, "  [{}]", route.id)
}
