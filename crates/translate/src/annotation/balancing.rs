//! How endpoints are chosen.

use super::value::{DURATION, duration};
use super::{Annotation, Closes};
use routing_table::policy::{Balancing, Cost, HashOn};
use std::sync::Arc;

/// What needs no more than its name.
const NAMED: [Balancing; 8] = [
    Balancing::RoundRobin,
    Balancing::LeastRequest,
    Balancing::LeastConnections,
    Balancing::PeakEwma,
    Balancing::Random,
    Balancing::SourceIp,
    Balancing::LeastBandwidth,
    Balancing::Cost(Cost::Length {
        base: 1,
        per_mebibyte: 1,
    }),
];

pub(super) const BALANCING: Annotation = Annotation {
    name: "balancing",
    nginx: &["load-balance"],
    value: "`round_robin`, `least_request`, `least_connections`, `peak_ewma` (or `ewma`), `random`, `source_ip`, \
            `least_bandwidth` or `cost`",
    doc: "How the endpoint of a request is chosen ([each of them](balancing.md)). Default `round_robin`. `hash-by` goes before it.",
    example: "peak_ewma",
    closes: Closes::Nothing,
    apply: |policy, value| {
        // The name that ingress-nginx gives it.
        let name = if value == "ewma" { "peak_ewma" } else { value };
        let mut named = NAMED.into_iter().filter(|one| one.as_str() == name);
        let balancing = named.next().ok_or("there is none of that name")?;
        // What is hashed says more, whichever of them was read first.
        if !matches!(policy.cluster.balancing, Balancing::RingHash(_)) {
            policy.cluster.balancing = balancing;
        }
        Ok(())
    },
};

pub(super) const HASH_BY: Annotation = Annotation {
    name: "hash-by",
    nginx: &["upstream-hash-by"],
    value: "`client-ip`, `path`, `path-and-query`, `header:NAME`, `cookie:NAME` or `query:NAME`; or one of nginx's variables \
            `$remote_addr`, `$binary_remote_addr`, `$uri`, `$request_uri`, `$host`, `$http_NAME`, `$cookie_NAME`, `$arg_NAME`",
    doc: "Requests with the same value go to the same endpoint (a hash ring); those without it to each in turn. Default: no.",
    example: "header:x-user",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.cluster.balancing = Balancing::RingHash(hash_on(value)?);
        Ok(())
    },
};

pub(super) const SLOW_START: Annotation = Annotation {
    name: "slow-start",
    nginx: &[],
    value: DURATION,
    doc: "Over how long a new endpoint rises from a tenth of its share to all of it. Default: at once.",
    example: "30s",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.cluster.slow_start = Some(duration(value)?);
        Ok(())
    },
};

fn hash_on(value: &str) -> Result<HashOn, String> {
    // nginx writes `${name}` too.
    let variable = value.strip_prefix('$').map(|rest| {
        let braced = rest
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        braced.unwrap_or(rest)
    });
    if let Some(variable) = variable {
        return Ok(match variable {
            "remote_addr" | "binary_remote_addr" => HashOn::ClientIp,
            "uri" | "document_uri" => HashOn::Path,
            "request_uri" => HashOn::PathAndQuery,
            "host" | "http_host" => HashOn::Header("host".into()),
            other => {
                if let Some(name) = other.strip_prefix("http_") {
                    HashOn::Header(field(&name.replace('_', "-"))?)
                } else if let Some(name) = other.strip_prefix("cookie_") {
                    HashOn::Cookie(token(name)?)
                } else if let Some(name) = other.strip_prefix("arg_") {
                    HashOn::Query(token(name)?)
                } else {
                    return Err("this variable, or several at once, cannot be hashed".into());
                }
            }
        });
    }
    match value.split_once(':') {
        None => match value {
            "client-ip" => Ok(HashOn::ClientIp),
            "path" => Ok(HashOn::Path),
            "path-and-query" => Ok(HashOn::PathAndQuery),
            _ => Err("there is nothing of that name to hash".into()),
        },
        Some(("header", name)) => Ok(HashOn::Header(field(name)?)),
        Some(("cookie", name)) => Ok(HashOn::Cookie(token(name)?)),
        Some(("query", name)) => Ok(HashOn::Query(token(name)?)),
        Some(_) => Err("only a header, a cookie or a query parameter has a name".into()),
    }
}

fn field(name: &str) -> Result<Arc<str>, String> {
    token(name).map(|name| name.to_ascii_lowercase().into())
}

/// A name as RFC 9110 section 5.6.2 has it.
pub(super) fn token(name: &str) -> Result<Arc<str>, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
        return Err("the name must be 1 to 128 letters, digits and `!#$%&'*+-.^_`|~`".into());
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_hashed() {
        for (value, expected) in [
            ("client-ip", "client-ip"),
            ("$binary_remote_addr", "client-ip"),
            ("$request_uri", "path-and-query"),
            ("${request_uri}", "path-and-query"),
            ("$uri", "path"),
            ("$host", "header:host"),
            ("$http_x_user_id", "header:x-user-id"),
            ("header:X-User", "header:x-user"),
            ("$cookie_session", "cookie:session"),
            ("cookie:s", "cookie:s"),
            ("$arg_id", "query:id"),
        ] {
            assert_eq!(
                hash_on(value).map(|on| on.to_string()).as_deref(),
                Ok(expected)
            );
        }
        for bad in [
            "",
            "$",
            "$host$uri",
            "$cookie_",
            "header:",
            "header:a b",
            "body",
            "x:y",
            "$arg_a;b",
            "$upstream_addr",
        ] {
            assert!(hash_on(bad).is_err(), "{bad}");
        }
    }
}
