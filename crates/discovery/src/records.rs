//! Records in, endpoints out.

use routing_table::{Endpoint, Serving};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most endpoints of one name; more records are left out and counted.
pub(crate) const MOST: usize = 1000;

/// One SRV record (RFC 2782). The target is lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Srv {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: String,
}

/// Endpoints, sorted, and how many records gave none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) left_out: usize,
}

/// The endpoints of SRV records whose targets have these addresses.
///
/// A target that is the root says that the service is decidedly not available (RFC 2782): it gives no endpoint.
pub(crate) fn of_srv(
    records: &[Srv],
    addresses: &BTreeMap<String, Vec<IpAddr>>,
    any_address: bool,
) -> Found {
    let each = records.iter().filter(|record| !record.target.is_empty());
    let endpoints = each.flat_map(|record| {
        let ips = addresses.get(&record.target).into_iter().flatten();
        ips.map(|ip| Endpoint {
            weight: record.weight.into(),
            priority: record.priority,
            name: Some(record.target.as_str().into()),
            ..Endpoint::new(SocketAddr::new(*ip, record.port), Serving::Ready)
        })
    });
    chosen(endpoints, any_address)
}

/// The endpoints of a name with these addresses.
pub(crate) fn of_addresses(ips: &[IpAddr], port: u16, any_address: bool) -> Found {
    let endpoints = ips
        .iter()
        .map(|ip| Endpoint::ready(SocketAddr::new(*ip, port)));
    chosen(endpoints, any_address)
}

fn chosen(endpoints: impl Iterator<Item = Endpoint>, any_address: bool) -> Found {
    let (mut found, mut all) = (Found::default(), 0);
    let mut seen = HashSet::new();
    let mut usable: Vec<Endpoint> = endpoints
        .inspect(|_| all += 1)
        .filter(|endpoint| {
            let ip = endpoint.addr.ip();
            endpoint.addr.port() != 0 && (any_address || !is_reserved(ip)) && !is_nowhere(ip)
        })
        .collect();
    // What is left out is of the last priority.
    usable.sort_by(|a, b| (a.priority, a).cmp(&(b.priority, b)));
    usable.retain(|endpoint| seen.insert(endpoint.addr));
    usable.truncate(MOST);
    found.left_out = all - usable.len();
    found.endpoints = usable;
    found
}

/// Addresses that no answer can mean.
fn is_nowhere(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Addresses behind which there is something of ours or of the machine's, which a stranger's DNS must not name.
fn is_reserved(ip: IpAddr) -> bool {
    /// Where a cloud's machines find their credentials by IPv6.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip {
        // 169.254.169.254 is link-local.
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_reserved(v4.into()) || is_nowhere(v4.into()),
            None => v6.is_loopback() || v6.is_unicast_link_local() || v6 == METADATA,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
        Srv {
            priority,
            weight,
            port,
            target: target.to_owned(),
        }
    }

    fn addresses(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<IpAddr>> {
        let parse = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        all.iter()
            .map(|(name, ips)| ((*name).to_owned(), parse(ips)))
            .collect()
    }

    fn shown(found: &Found) -> Vec<String> {
        let show = |one: &Endpoint| format!("{} p{} w{}", one.addr, one.priority, one.weight);
        found.endpoints.iter().map(show).collect()
    }

    /// N5, and SRV targets of both families.
    #[test]
    fn records_become_endpoints_whatever_their_order() {
        let known = addresses(&[("b1", &["10.0.0.1", "2001:db8::1"]), ("b2", &["10.0.0.2"])]);
        let mut records = vec![
            srv(0, 30, 80, "b1"),
            srv(10, 0, 81, "b2"),
            srv(0, 5, 0, "b2"),
            srv(0, 5, 80, ""),
            srv(0, 5, 80, "unknown"),
        ];
        let found = of_srv(&records, &known, false);
        assert_eq!(
            shown(&found),
            [
                "10.0.0.1:80 p0 w30",
                "[2001:db8::1]:80 p0 w30",
                "10.0.0.2:81 p10 w0",
            ]
        );
        assert_eq!(found.left_out, 1, "port 0");
        records.reverse();
        assert_eq!(of_srv(&records, &known, false), found);
    }

    /// N6.
    #[test]
    fn addresses_that_a_stranger_must_not_name() {
        let bad = [
            "127.0.0.1",
            "169.254.169.254",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
        ];
        let never = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"];
        for text in bad {
            let ip = [text.parse().unwrap()];
            assert!(of_addresses(&ip, 80, false).endpoints.is_empty(), "{text}");
            assert_eq!(of_addresses(&ip, 80, true).endpoints.len(), 1, "{text}");
        }
        for text in never {
            let found = of_addresses(&[text.parse().unwrap()], 80, true);
            assert!(found.endpoints.is_empty() && found.left_out == 1, "{text}");
        }
    }

    /// N4.
    #[test]
    fn there_is_a_most() {
        let ips: Vec<IpAddr> = (0..2000u32)
            .map(|n| Ipv4Addr::from(0x0a00_0000 + n).into())
            .collect();
        let found = of_addresses(&ips, 80, false);
        assert_eq!((found.endpoints.len(), found.left_out), (MOST, 1000));
    }
}
