//! Which clients a route serves, by address. Everybody else is answered 403.
//!
//! Deliberately by address only: who a client is behind its address is for TLS or authentication to say.

use super::{ApplyFilter, Ending, Passage};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

/// Networks that are served and that are not. As in ingress-nginx, what is denied is looked at first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessList {
    /// Never served.
    pub deny: Vec<IpNet>,
    /// Served, and nobody else is; empty: everybody.
    pub allow: Vec<IpNet>,
}

impl AccessList {
    /// Whether a client is served.
    pub fn permits(&self, client: IpAddr) -> bool {
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

impl ApplyFilter for AccessList {
    fn on_request<'a>(&'a self, passage: &mut Passage<'a>) -> ControlFlow<Ending> {
        if self.permits(passage.client) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(Ending::Forbidden)
        }
    }
}

/// Reads a network, such as `10.0.0.0/8` or `2001:db8::/32`; an address alone is a network of one.
///
/// # Errors
/// What is wrong with it, in words.
pub fn network(text: &str) -> Result<IpNet, String> {
    let read = match text.parse::<IpNet>() {
        Ok(network) => Some(network),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let Some(network) = read else {
        let most = text.rsplit_once('/').and_then(|(addr, length)| {
            let addr = addr.parse::<IpAddr>().ok()?;
            Some((length, if addr.is_ipv4() { 32 } else { 128 }))
        });
        return Err(match most {
            Some((length, most)) => format!(
                "{text:?} is no network: what is behind the slash is from 0 to {most}, not {length:?}"
            ),
            None => format!("{text:?} is no network or address, such as 10.0.0.0/8 or 2001:db8::1"),
        });
    };
    // Clients are never seen as IPv4 mapped into IPv6, so such a network would match nobody.
    match (network.addr().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(addr), length) if network.addr().is_ipv6() => {
            let length = length
                .checked_sub(96)
                .ok_or_else(|| format!("{text:?} is wider than IPv4"))?;
            IpNet::new(addr.into(), length)
                .map(|network| network.trunc())
                .map_err(|error| error.to_string())
        }
        _ => Ok(network.trunc()),
    }
}

impl fmt::Display for AccessList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, networks: &[IpNet]| {
            write!(f, "{name}=")?;
            for (index, network) in networks.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                write!(f, "{comma}{network}")?;
            }
            Ok(())
        };
        if !self.deny.is_empty() {
            list(f, "deny", &self.deny)?;
        }
        if !self.deny.is_empty() && !self.allow.is_empty() {
            f.write_str(" ")?;
        }
        if !self.allow.is_empty() {
            list(f, "allow", &self.allow)?;
        }
        Ok(())
    }
}
