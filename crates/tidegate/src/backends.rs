//! `/backends` of the admin port: every endpoint as requests see it, and what an operator wants of one.
//!
//! JSON and sentences only; what they are made of, and what they do, is [`data_plane::Backends`].

use bytes::Bytes;
use data_plane::{Backends, CheckStatus, ClusterStatus, EndpointStatus, UnknownBackend, Wish};
use http::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// What a change may be, for whoever gets it wrong.
const FORM: &str = "a JSON object of weight_percent (0 to 100), drain (true or false) and max_requests (1 or more, or null)";

/// All of them.
pub(crate) fn list(backends: &Backends) -> String {
    shown(&backends.read(), |_, _| true)
}

/// Which endpoint a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    namespace: String,
    service: String,
    port: u16,
    addr: SocketAddr,
}

impl Place {
    /// Reads what follows `/backends/`: `<namespace>/<service>:<port>/<address>`.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut path = path.to_owned();
        for (code, plain) in [("%5B", "["), ("%5D", "]"), ("%3A", ":")] {
            path = path
                .replace(code, plain)
                .replace(&code.to_lowercase(), plain);
        }
        let mut parts = path.splitn(3, '/');
        let (namespace, cluster, addr) = (parts.next()?, parts.next()?, parts.next()?);
        let (service, port) = cluster.rsplit_once(':')?;
        if namespace.is_empty() || service.is_empty() {
            return None;
        }
        Some(Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port: port.parse().ok()?,
            addr: addr.parse().ok()?,
        })
    }
}

/// Does what a body says, and shows what came of it; or says what is wrong with it.
pub(crate) fn change(
    backends: &Backends,
    path: &str,
    body: &Bytes,
) -> Result<String, (StatusCode, String)> {
    let place = Place::parse(path).ok_or_else(|| {
        let form = "/backends/<namespace>/<service>:<port>/<address>:<port>";
        (
            StatusCode::NOT_FOUND,
            format!("an endpoint is at {form}, such as /backends/shop/web:80/10.1.2.3:8080"),
        )
    })?;
    let wish = wish(body).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let Place {
        namespace,
        service,
        port,
        addr,
    } = &place;
    let done = backends.wish(namespace, service, *port, *addr, wish);
    done.map_err(|error: UnknownBackend| (StatusCode::NOT_FOUND, error.to_string()))?;
    Ok(shown(&backends.read(), |cluster, endpoint| {
        let id = &cluster.id;
        (&*id.namespace, &*id.service, id.port) == (namespace, service, *port)
            && endpoint.addr == *addr
    }))
}

fn wish(body: &[u8]) -> Result<Wish, String> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not JSON ({error}): it must be {FORM}"))?;
    let Value::Object(fields) = value else {
        return Err(format!("the body is no object: it must be {FORM}"));
    };
    if fields.is_empty() {
        return Err(format!("the body wants nothing: it must be {FORM}"));
    }
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    let mut wish = Wish::default();
    for (name, value) in &fields {
        match name.as_str() {
            "weight_percent" => {
                let percent = number(value).filter(|percent| *percent <= 100);
                let percent = percent.ok_or("weight_percent must be a whole number, 0 to 100")?;
                wish.weight_percent = Some(percent);
            }
            "drain" => {
                let drain = value.as_bool().ok_or("drain must be true or false")?;
                wish.drain = Some(drain);
            }
            "max_requests" if value.is_null() => wish.max_requests = Some(None),
            "max_requests" => {
                let most = number(value).filter(|most| *most > 0);
                let most =
                    most.ok_or("max_requests must be a whole number of 1 or more, or null")?;
                wish.max_requests = Some(Some(most));
            }
            other => {
                let other: String = other.chars().take(50).collect();
                return Err(format!(
                    "there is no field {other:?}: the body must be {FORM}"
                ));
            }
        }
    }
    Ok(wish)
}

/// Clusters with those of their endpoints that are wanted; no cluster without.
fn shown(
    clusters: &[ClusterStatus],
    wanted: impl Fn(&ClusterStatus, &EndpointStatus) -> bool,
) -> String {
    let clusters = clusters.iter().filter_map(|cluster| {
        let endpoints = cluster.endpoints.iter();
        let endpoints: Vec<_> = endpoints
            .filter(|one| wanted(cluster, one))
            .map(endpoint)
            .collect();
        if endpoints.is_empty() && !cluster.endpoints.is_empty() {
            return None;
        }
        let id = &cluster.id;
        Some(json!({
            "name": id.to_string(),
            "namespace": &*id.namespace,
            "service": &*id.service,
            "port": id.port,
            "transport": id.transport.as_str(),
            "variant": id.variant.as_deref(),
            "balancing": cluster.balancing,
            "ignores_health": cluster.ignores_health,
            "endpoints": endpoints,
        }))
    });
    let clusters: Vec<_> = clusters.collect();
    format!("{:#}\n", json!({ "clusters": clusters }))
}

fn endpoint(endpoint: &EndpointStatus) -> Value {
    let reasons: Vec<_> = endpoint
        .reasons
        .iter()
        .map(|reason| {
            json!({
                "check": reason.check,
                "why": reason.why,
                "since_seconds": reason.since.map(seconds),
            })
        })
        .collect();
    json!({
        "addr": endpoint.addr.to_string(),
        "name": endpoint.name.as_deref(),
        "state": endpoint.state.as_str(),
        "gets_requests": endpoint.gets_requests,
        "reasons": reasons,
        "weight": endpoint.weight,
        "effective_weight": endpoint.effective_weight,
        "weight_percent": endpoint.weight_percent,
        "agent_weight_percent": endpoint.agent_weight_percent,
        "priority": endpoint.priority,
        "in_flight": endpoint.in_flight,
        "max_requests": endpoint.max_requests,
        "latency_ms": endpoint.latency.map(|latency| latency.as_micros() as f64 / 1000.0),
        "last_check": endpoint.last_check.as_ref().map(check),
        "last_agent_check": endpoint.last_agent_check.as_ref().map(check),
    })
}

fn check(check: &CheckStatus) -> Value {
    json!({
        "kind": check.kind,
        "result": if check.passed { "pass" } else { "fail" },
        "why": check.why,
        "seconds_ago": seconds(check.ago),
    })
}

/// To a tenth.
fn seconds(time: Duration) -> f64 {
    (time.as_millis() / 100) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |addr: &str| Place {
            namespace: "shop".into(),
            service: "web".into(),
            port: 80,
            addr: addr.parse().unwrap(),
        };
        for (path, expected) in [
            ("shop/web:80/10.1.2.3:8080", Some(place("10.1.2.3:8080"))),
            ("shop/web:80/[fd00::1]:80", Some(place("[fd00::1]:80"))),
            ("shop/web:80/%5bfd00::1%5D:80", Some(place("[fd00::1]:80"))),
            ("shop/web%3A80/1.2.3.4%3a1", Some(place("1.2.3.4:1"))),
            ("shop/web/10.1.2.3:8080", None),
            ("shop/web:80/10.1.2.3", None),
            ("shop/web:80/10.1.2.3:80/x", None),
            ("shop/web:99999/10.1.2.3:80", None),
            ("/web:80/10.1.2.3:80", None),
            ("shop/:80/10.1.2.3:80", None),
            ("shop/web:80", None),
            ("", None),
        ] {
            assert_eq!(Place::parse(path), expected, "{path:?}");
        }
    }

    #[test]
    fn wishes() {
        let all = br#"{"weight_percent": 0, "drain": true, "max_requests": 5}"#;
        let expected = Wish {
            weight_percent: Some(0),
            drain: Some(true),
            max_requests: Some(Some(5)),
        };
        assert_eq!(wish(all), Ok(expected));
        let expected = Wish {
            max_requests: Some(None),
            ..Wish::default()
        };
        assert_eq!(wish(br#"{"max_requests": null}"#), Ok(expected));
        for (body, said) in [
            ("", "not JSON"),
            ("[]", "no object"),
            ("{}", "wants nothing"),
            (r#"{"weight": 5}"#, "no field \"weight\""),
            (r#"{"weight_percent": 101}"#, "0 to 100"),
            (r#"{"weight_percent": 1.5}"#, "0 to 100"),
            (r#"{"weight_percent": -1}"#, "0 to 100"),
            (r#"{"weight_percent": null}"#, "0 to 100"),
            (r#"{"drain": 1}"#, "true or false"),
            (r#"{"max_requests": 0}"#, "1 or more"),
            (r#"{"max_requests": 4294967296}"#, "1 or more"),
            (r#"{"drain": true, "max_requests": "x"}"#, "1 or more"),
        ] {
            let error = wish(body.as_bytes()).unwrap_err();
            assert!(
                error.contains(said) && !error.contains('\n'),
                "{body}: {error}"
            );
        }
        let deep = "[".repeat(100_000);
        assert!(wish(deep.as_bytes()).is_err());
    }
}
