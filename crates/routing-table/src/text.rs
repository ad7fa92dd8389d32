//! The one rendering of a table for people: golden files, `tidegate translate` and `/debug/routes`.

use crate::cluster::ProxyVersion;
use crate::endpoint::Serving;
use crate::listener::{Listener, ListenerProtocol};
use crate::route::{Action, RetryPolicy, Route, Timeouts};
use crate::table::RoutingTable;
use crate::update::EndpointSets;
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
                "  client certificates {host}: {} ({}, depth {}, {} authorities, {} revocation lists{passed})",
                demand.demand,
                demand.source,
                demand.depth,
                demand.authorities.len(),
                demand.revoked.len()
            )?;
        }
        for (host, routes) in listener.virtual_hosts.iter() {
            writeln!(out, "  host {host}")?;
            for route in routes {
                write_route(out, table, route, &route.path.to_string())?;
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
        write!(out, "cluster {}:", cluster.id)?;
        match cluster.proxy_header {
            None => {}
            Some(ProxyVersion::V1) => write!(out, " PROXY v1")?,
            Some(ProxyVersion::V2) => write!(out, " PROXY v2")?,
        }
        match endpoints.get(&cluster.id).map(Vec::as_slice) {
            None | Some([]) => write!(out, " no endpoints")?,
            Some(all) => {
                for endpoint in all {
                    let draining = if endpoint.serving == Serving::Draining {
                        " (draining)"
                    } else {
                        ""
                    };
                    write!(out, " {}{draining}", endpoint.addr)?;
                }
            }
        }
        writeln!(out)?;
    }
    Ok(())
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
    if route.retry != RetryPolicy::default() {
        write!(out, " attempts={}", route.retry.attempts)?;
    }
    writeln!(out, "  [{}]", route.id)
}
