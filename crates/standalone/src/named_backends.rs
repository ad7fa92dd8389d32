//! A configuration without a file: one listener, and backends that flags or variables name.

use crate::build::{Context, Defaults, Failure, Translation, build};
use crate::config::{
    BackendConfig, BackendProtocol, BackendTlsConfig, Config, Listed, ListenerConfig, Protocol,
    RouteConfig,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why endpoints on the command line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendsError {
    /// What was given is wrong.
    #[error("{0}")]
    Wrong(String),
    /// A file that it names cannot be used.
    #[error("{0}")]
    File(String),
}

/// One listener at `listen`, and everything goes to these URLs: `http://host`, `https://host:port`, `host:port`. `ca` is the file
/// of whom to believe where there is TLS; without it those of the system are believed.
///
/// # Errors
/// Names the URL and what is wrong with it.
pub fn from_backends(
    listen: SocketAddr,
    urls: &[String],
    ca: Option<&str>,
    defaults: &Defaults,
) -> Result<Translation, BackendsError> {
    let wrong = |message: String| Err(BackendsError::Wrong(message));
    let read = urls
        .iter()
        .map(|url| backend(url).map_err(BackendsError::Wrong));
    let read = read.collect::<Result<Vec<Backend>, _>>()?;
    let through_tls = read.iter().any(|one| one.https);
    if let (true, Some(plain)) = (through_tls, read.iter().find(|one| !one.https)) {
        return wrong(format!(
            "{} is plain among https:// URLs; all are spoken to in the same way, or use --config",
            plain.target()
        ));
    }
    if ca.is_some() && !through_tls {
        return wrong("--backend-ca is for https:// URLs, and there is none".to_owned());
    }
    let mut seen: Vec<String> = Vec::new();
    let mut endpoints = Vec::new();
    let mut dns = None;
    for one in &read {
        let target = one.target();
        if seen.contains(&target) {
            return wrong(format!("the backend {target} is given twice"));
        }
        match target.parse::<SocketAddr>() {
            Ok(_) if through_tls => endpoints.push(format!("{target} sni={}", one.name)),
            Ok(_) => endpoints.push(target.clone()),
            Err(_) if dns.is_none() => dns = Some(target.clone()),
            Err(_) => {
                return wrong(format!(
                    "{target} is the second name; several backends must be IP addresses, or use --config"
                ));
            }
        }
        seen.push(target);
    }
    if let (Some(name), false) = (&dns, endpoints.is_empty()) {
        return wrong(format!(
            "{name} is a name among IP addresses; a name stands alone, or use --config"
        ));
    }
    let tls = through_tls.then(|| BackendTlsConfig {
        server_name: None,
        ca: ca.map(str::to_owned),
        verify: None,
    });
    let backend = BackendConfig {
        fixed: dns.is_none().then_some(endpoints),
        dns,
        srv: None,
        resolver: None,
        protocol: BackendProtocol::Http,
        tls,
        policy: None,
    };
    let config = Config {
        name_suffixes: BTreeMap::new(),
        listeners: vec![ListenerConfig {
            name: Some("http".to_owned()),
            address: Some(listen.ip().to_string()),
            port: listen.port(),
            protocol: Protocol::Http,
            tls: Vec::new(),
            passthrough: Vec::new(),
            backend: None,
            idle_timeout: None,
            deny: Listed::default(),
            allow: Listed::default(),
        }],
        routes: vec![RouteConfig {
            name: Some("default".to_owned()),
            listeners: Listed::default(),
            hosts: Listed::default(),
            path: None,
            method: None,
            headers: Listed::default(),
            query: Listed::default(),
            cookies: Listed::default(),
            clients: Listed::default(),
            first_path_segment: false,
            backend: Some("default".to_owned()),
            respond: None,
            timeouts: None,
            retries: None,
            max_request_body: None,
            deny: Listed::default(),
            allow: Listed::default(),
            rate_limit: None,
            redirect: None,
            rewrite: None,
            request_headers: None,
            response_headers: None,
            upstream_header: None,
        }],
        backends: BTreeMap::from([("default".to_owned(), backend)]),
    };
    let context = Context {
        config: &config,
        defaults,
        base: PathBuf::new(),
        read_files: true,
    };
    build(&context).map_err(|failure| match failure {
        Failure::Wrong(wrong) => BackendsError::Wrong(wrong.message),
        Failure::File(wrong) => BackendsError::File(match ca {
            Some(_) => format!("--backend-ca: {}", wrong.message),
            None => wrong.message.replace("in \"ca\"", "by --backend-ca"),
        }),
    })
}

/// A URL, read.
#[derive(Debug, PartialEq, Eq)]
struct Backend {
    https: bool,
    /// What it proves to be called, where there is TLS.
    name: String,
    /// Where it is.
    host: String,
    port: u16,
}

impl Backend {
    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn backend(url: &str) -> Result<Backend, String> {
    let shown = crate::problem::printable(url);
    let text = url.trim();
    let (https, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(format!("\"{shown}\" is no http:// or https:// URL")),
        None => (false, text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Err(format!("the backend \"{shown}\" has no host"));
    }
    if let Some(at) = rest.find(['/', '?', '#', '@', ' ']) {
        let found = &rest[at..=at];
        return Err(format!(
            "the backend \"{shown}\" has a '{found}'; it is a host and a port only"
        ));
    }
    let is_port = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let number = is_port(port).ok_or_else(|| {
                format!("the port of the backend \"{shown}\" is not a number from 1 to 65535")
            })?;
            (host, number)
        }
        _ => (rest, if https { 443 } else { 80 }),
    };
    let name = host.to_ascii_lowercase();
    let host = match name.as_str() {
        "localhost" => "127.0.0.1".to_owned(),
        other => other.to_owned(),
    };
    Ok(Backend {
        https,
        name,
        host,
        port,
    })
}

/// The backends that `BACKEND_1`, `BACKEND_2` and so on name.
///
/// # Errors
/// When one of them is missing, or set to something that is no number of ours.
pub fn backends_of(
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Vec<String>, BackendsError> {
    let mut by_number = BTreeMap::new();
    for (name, value) in environment {
        let Some(number) = name.strip_prefix("BACKEND_") else {
            continue;
        };
        // BACKEND_URL and the like are somebody else's.
        if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            let parsed = number
                .parse::<u32>()
                .ok()
                .filter(|n| n.to_string() == number && *n > 0);
            let parsed = parsed.ok_or_else(|| {
                BackendsError::Wrong(format!(
                    "{name} is not numbered as BACKEND_1, BACKEND_2 and so on"
                ))
            })?;
            if value.trim().is_empty() {
                return Err(BackendsError::Wrong(format!("{name} is set, but empty")));
            }
            by_number.insert(parsed, value);
        }
    }
    for (expected, found) in (1..).zip(by_number.keys()) {
        if expected != *found {
            return Err(BackendsError::Wrong(format!(
                "BACKEND_{found} is set, but BACKEND_{expected} is not"
            )));
        }
    }
    Ok(by_number.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, u16), &str>) {
        let found = backend(url);
        let found = found.as_ref().map(|one| (one.host.as_str(), one.port));
        assert_eq!(found.map_err(String::as_str), expected, "{url}");
    }

    #[track_caller]
    fn check_https(url: &str, name: &str, target: &str) {
        let found = backend(url).unwrap();
        assert!(found.https, "{url}");
        assert_eq!((&*found.name, &*found.target()), (name, target), "{url}");
    }

    #[test]
    fn urls_of_backends() {
        check("http://10.0.0.1", Ok(("10.0.0.1", 80)));
        check("  http://10.0.0.1:8080/ ", Ok(("10.0.0.1", 8080)));
        check("10.0.0.1:8080", Ok(("10.0.0.1", 8080)));
        check("http://[::1]", Ok(("[::1]", 80)));
        check("http://[::1]:81", Ok(("[::1]", 81)));
        check("http://Web.Test:81", Ok(("web.test", 81)));
        check("http://localhost:81", Ok(("127.0.0.1", 81)));
        check("", Err("the backend \"\" has no host"));
        check("http://", Err("the backend \"http://\" has no host"));
        check_https("https://Web.Test", "web.test", "web.test:443");
        check_https("https://web.test:8443/", "web.test", "web.test:8443");
        check_https("https://10.0.0.1", "10.0.0.1", "10.0.0.1:443");
        check_https("https://[::1]:444", "[::1]", "[::1]:444");
        check_https("https://localhost", "localhost", "127.0.0.1:443");
        check(
            "https://a/x",
            Err("the backend \"https://a/x\" has a '/'; it is a host and a port only"),
        );
        check("ftp://a", Err("\"ftp://a\" is no http:// or https:// URL"));
        check(
            "http://a/x",
            Err("the backend \"http://a/x\" has a '/'; it is a host and a port only"),
        );
        check(
            "http://a:0",
            Err("the port of the backend \"http://a:0\" is not a number from 1 to 65535"),
        );
        check(
            "http://a:99999",
            Err("the port of the backend \"http://a:99999\" is not a number from 1 to 65535"),
        );
    }

    #[track_caller]
    fn check_all(urls: &[&str], expected: Result<(), &str>) {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let made = from_backends(listen, &urls, None, &Defaults::default()).map(drop);
        assert_eq!(
            made,
            expected.map_err(|message| BackendsError::Wrong(message.to_owned())),
            "{urls:?}"
        );
    }

    #[test]
    fn several_backends() {
        check_all(&["http://10.0.0.1", "http://10.0.0.2"], Ok(()));
        check_all(&["http://web.test"], Ok(()));
        check_all(
            &["http://10.0.0.1", " 10.0.0.1:80"],
            Err("the backend 10.0.0.1:80 is given twice"),
        );
        check_all(
            &["web.test", "10.0.0.1"],
            Err("web.test:80 is a name among IP addresses; a name stands alone, or use --config"),
        );
        check_all(
            &["a.test", "b.test"],
            Err(
                "b.test:80 is the second name; several backends must be IP addresses, or use --config",
            ),
        );
        check_all(&["http://a_b!"], Err("\"a_b!\" is no name of the DNS"));
        check_all(
            &["https://10.0.0.1", "http://10.0.0.2"],
            Err(
                "10.0.0.2:80 is plain among https:// URLs; all are spoken to in the same way, or use --config",
            ),
        );
    }

    #[track_caller]
    fn check_environment(set: &[(&str, &str)], expected: Result<&[&str], &str>) {
        let set = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let found = backends_of(set).map_err(|error| error.to_string());
        let expected = expected.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn backends_of_the_environment() {
        check_environment(&[], Ok(&[]));
        check_environment(
            &[
                ("BACKEND_2", "b"),
                ("X", "y"),
                ("BACKEND_1", "a"),
                ("BACKEND_URL", "z"),
            ],
            Ok(&["a", "b"]),
        );
        check_environment(
            &[("BACKEND_1", "a"), ("BACKEND_3", "c")],
            Err("BACKEND_3 is set, but BACKEND_2 is not"),
        );
        check_environment(&[("BACKEND_1", " ")], Err("BACKEND_1 is set, but empty"));
        check_environment(
            &[("BACKEND_0", "a")],
            Err("BACKEND_0 is not numbered as BACKEND_1, BACKEND_2 and so on"),
        );
        let many: Vec<(String, String)> = (1..=10)
            .map(|n| (format!("BACKEND_{n}"), n.to_string()))
            .collect();
        assert_eq!(
            backends_of(many.into_iter()).map(|all| all[9].clone()),
            Ok("10".to_owned())
        );
    }
}
