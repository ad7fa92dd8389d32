//! A static endpoint, on one line: `10.0.0.1:8080 weight=2 priority=1 max_connections=100 zone=a sni=web.test`.

use crate::dns_name;
use crate::problem::{printable, unknown};
use routing_table::Endpoint;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

const OPTIONS: [&str; 5] = ["weight", "priority", "max_connections", "zone", "sni"];

/// What a line says.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) endpoint: Endpoint,
    /// The name that it proves to have in a TLS handshake, where that is another one than that of its backend.
    pub(crate) server_name: Option<Arc<str>>,
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(line: &str) -> Result<Line, String> {
    let mut words = line.split_whitespace();
    let address = words.next().ok_or("an empty line; expected IP:port")?;
    let mut endpoint = Endpoint::ready(self::address(address)?);
    let mut server_name = None;
    let mut given = Vec::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!(
                "expected name=value, found \"{}\"",
                printable(word)
            ));
        };
        if given.contains(&name) {
            return Err(format!("{name} stands there twice"));
        }
        match name {
            "weight" => endpoint.weight = number(name, value, 0)?,
            "priority" => endpoint.priority = number(name, value, 0)?,
            "max_connections" => endpoint.max_requests = Some(number(name, value, 1)?),
            "zone" if value.is_empty() => return Err("zone has no name".to_owned()),
            "zone" => endpoint.zone = Some(value.into()),
            "sni" => {
                let read = dns_name::of_server(value);
                server_name = Some(read.map_err(|message| format!("sni: {message}"))?);
            }
            _ => return Err(unknown("option", name, &OPTIONS)),
        }
        given.push(name);
    }
    Ok(Line {
        endpoint,
        server_name,
    })
}

/// Reads an IP address with a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let shown = printable(text);
    let address: SocketAddr = text.parse().map_err(|_| {
        let is_ip = text
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok();
        match text.rsplit_once(':') {
            _ if is_ip => format!("\"{shown}\" has no port; expected IP:port"),
            Some((host, port))
                if port.parse::<u16>().is_ok()
                    && host.starts_with(|c: char| c.is_ascii_alphabetic())
                    && !host.contains(':') =>
            {
                format!("\"{shown}\" is a name; names are for \"dns\" and \"srv\"")
            }
            _ => format!("\"{shown}\" is not IP:port, such as 10.0.0.1:8080 or [fd00::1]:8080"),
        }
    })?;
    if address.port() == 0 {
        return Err(format!("\"{shown}\" has the port 0"));
    }
    Ok(address)
}

fn number<T: FromStr + PartialOrd + From<u16>>(
    name: &str,
    value: &str,
    least: u16,
) -> Result<T, String> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = value
        .parse::<T>()
        .ok()
        .filter(|number| digits && *number >= T::from(least));
    number.ok_or_else(|| {
        format!(
            "{name} must be a whole number, {least} or more and not too large, and is \"{}\"",
            printable(value)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<(u32, u16, Option<u32>), &str>) {
        let found = parse(line).map(|line| line.endpoint);
        let found = found.map(|e| (e.weight, e.priority, e.max_requests));
        assert_eq!(
            found.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|e| *e),
            "{line:?}"
        );
    }

    #[test]
    fn lines() {
        check("10.0.0.1:80", Ok((1, 0, None)));
        check(
            "  [::1]:80\t weight=5  priority=2 max_connections=9 ",
            Ok((5, 2, Some(9))),
        );
        check("10.0.0.1:80 weight=0", Ok((0, 0, None)));
        check("", Err("an empty line; expected IP:port"));
        check(
            "10.0.0.1",
            Err("\"10.0.0.1\" has no port; expected IP:port"),
        );
        check("10.0.0.1:0", Err("\"10.0.0.1:0\" has the port 0"));
        check(
            "10.0.0.1:99999",
            Err("\"10.0.0.1:99999\" is not IP:port, such as 10.0.0.1:8080 or [fd00::1]:8080"),
        );
        check(
            "web:80",
            Err("\"web:80\" is a name; names are for \"dns\" and \"srv\""),
        );
        check(
            "10.0.0.1:80 wieght=5",
            Err("unknown option \"wieght\", did you mean \"weight\"?"),
        );
        check("10.0.0.1:80 5", Err("expected name=value, found \"5\""));
        check(
            "10.0.0.1:80 weight=1 weight=2",
            Err("weight stands there twice"),
        );
        check(
            "10.0.0.1:80 weight=-1",
            Err("weight must be a whole number, 0 or more and not too large, and is \"-1\""),
        );
        check(
            "10.0.0.1:80 weight=99999999999",
            Err(
                "weight must be a whole number, 0 or more and not too large, and is \"99999999999\"",
            ),
        );
        check(
            "10.0.0.1:80 max_connections=0",
            Err(
                "max_connections must be a whole number, 1 or more and not too large, and is \"0\"",
            ),
        );
        check(
            "10.0.0.1:80 sni=a..test",
            Err("sni: \"a..test\" is no name of the DNS"),
        );
        check("10.0.0.1:80 sni=", Err("sni: \"\" is no name of the DNS"));
        check(
            "10.0.0.1:80 sni=10.0.0.256",
            Err("sni: \"10.0.0.256\" is neither a name of the DNS nor an IP address"),
        );
    }

    #[test]
    fn names_of_servers() {
        for (line, expected) in [
            ("10.0.0.1:80", None),
            ("10.0.0.1:80 sni=Web.Test. weight=2", Some("web.test")),
            ("10.0.0.1:80 sni=10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1:80 sni=[fd00::1]", Some("fd00::1")),
        ] {
            let name = parse(line).map(|line| line.server_name);
            assert_eq!(name, Ok(expected.map(Arc::from)), "{line}");
        }
    }
}
