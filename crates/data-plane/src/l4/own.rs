//! Endpoints that are ourselves: to relay to one would be to accept the same connection again and again.
//!
//! HTTP counts its rounds in a field; bytes that are not understood have no place for a count, so it has to be seen before
//! the first one. Ways back that lead over another machine are bounded by the limits of a relay alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether an endpoint is one of these addresses, on which we listen.
pub(super) fn leads_back(
    endpoint: SocketAddr,
    mut listening: impl Iterator<Item = SocketAddr>,
) -> bool {
    let target = endpoint.ip().to_canonical();
    listening.any(|own| {
        let own_ip = own.ip().to_canonical();
        own.port() == endpoint.port()
            && (own_ip == target || (own_ip.is_unspecified() && is_of_this_machine(target)))
    })
}

/// Whether packets to this address stay here: then it is also the address they would be sent from. Nothing is sent.
fn is_of_this_machine(target: IpAddr) -> bool {
    if target.is_loopback() || target.is_unspecified() {
        return true;
    }
    let any = match target {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((target, 9))?;
        socket.local_addr()
    });
    // What cannot be reached is not us.
    source.is_ok_and(|source| source.ip() == target)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[track_caller]
    fn check(endpoint: &str, listening: &[&str], expected: bool) {
        let listening = listening.iter().map(|addr| addr.parse().unwrap());
        assert_eq!(leads_back(endpoint.parse().unwrap(), listening), expected);
    }

    #[test]
    fn ourselves_and_others() {
        check("127.0.0.1:80", &["127.0.0.1:80"], true);
        check("127.0.0.1:80", &["127.0.0.1:81"], false);
        check("127.0.0.2:80", &["127.0.0.1:80"], false);
        check("127.0.0.2:80", &["0.0.0.0:81", "0.0.0.0:80"], true);
        check("127.0.0.1:80", &["[::]:80"], true);
        check("[::ffff:127.0.0.1]:80", &["0.0.0.0:80"], true);
        check("192.0.2.1:80", &["0.0.0.0:80"], false);
        check("192.0.2.1:80", &[], false);
    }
}
