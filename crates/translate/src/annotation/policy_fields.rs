//! How the endpoints of a Service are chosen and judged, as annotations say it: every field of a [`PolicySpec`], and what
//! ingress-nginx calls some of them.
//!
//! Fields, their texts and their ranges are declared in `policy`. Here is only which annotations say them.

use super::{NGINX_PREFIX, PREFIX, bounded, field};
use crate::diagnostic::{Findings, printable};
use crate::snapshot::ObjectRef;
use policy::PolicySpec;
use policy::annotations::{Field, fields};
use std::collections::BTreeMap;

/// The name that ingress-nginx gives its cookie.
const NGINX_COOKIE: &str = "INGRESSCOOKIE";
/// An annotation of ingress-nginx that says a field.
struct Nginx {
    /// Name behind [`NGINX_PREFIX`].
    name: &'static str,
    /// Name of the field, as an annotation of ours.
    field: &'static str,
    /// Its value in our words.
    ours: fn(&str) -> Result<String, String>,
}

/// In this order: what comes later goes before what came earlier.
const NGINX: [Nginx; 11] = [
    Nginx {
        name: "load-balance",
        field: "balancing",
        ours: |value| match value {
            "ewma" => Ok("peak_ewma".into()),
            other => Ok(other.into()),
        },
    },
    Nginx {
        name: "upstream-hash-by",
        field: "hash-by",
        ours: hash_by,
    },
    Nginx {
        name: "affinity",
        field: "affinity",
        ours: |value| match value {
            "cookie" => Ok("true".into()),
            _ => Err("there is no kind but cookie".into()),
        },
    },
    Nginx {
        name: "affinity-mode",
        field: "affinity-mode",
        ours: same,
    },
    Nginx {
        name: "session-cookie-name",
        field: "affinity-cookie",
        ours: same,
    },
    Nginx {
        name: "session-cookie-domain",
        field: "affinity-domain",
        ours: same,
    },
    Nginx {
        name: "session-cookie-expires",
        field: "affinity-max-age",
        ours: same,
    },
    Nginx {
        name: "session-cookie-max-age",
        field: "affinity-max-age",
        ours: same,
    },
    Nginx {
        name: "session-cookie-path",
        field: "affinity-path",
        ours: same,
    },
    Nginx {
        name: "session-cookie-samesite",
        field: "affinity-same-site",
        ours: |value| match value.to_ascii_lowercase().as_str() {
            "strict" => Ok("Strict".into()),
            "lax" => Ok("Lax".into()),
            "none" => Ok("None".into()),
            _ => Err("it is none of Strict, Lax, None".into()),
        },
    },
    Nginx {
        name: "session-cookie-secure",
        field: "affinity-secure",
        ours: same,
    },
];

fn same(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// What of nginx's variables can be hashed.
fn hash_by(value: &str) -> Result<String, String> {
    let variable = value.strip_prefix('$').map(|rest| {
        let braced = rest
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        braced.unwrap_or(rest)
    });
    Ok(match variable {
        Some("remote_addr" | "binary_remote_addr") => "client-ip".into(),
        Some("uri" | "document_uri") => "path".into(),
        Some("request_uri") => "path-and-query".into(),
        Some("host" | "http_host") => "header:host".into(),
        Some(other) => {
            let is_name = other
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let named = other
                .split_once('_')
                .filter(|(_, name)| is_name && !name.is_empty());
            match named {
                Some(("http", name)) => format!("header:{}", name.replace('_', "-")),
                Some(("cookie", name)) => format!("cookie:{name}"),
                Some(("arg", name)) => format!("query:{name}"),
                _ => return Err("this variable, or several at once, cannot be hashed".into()),
            }
        }
        None => return Err("only one of nginx's variables can be hashed".into()),
    })
}

fn field_named(name: &str) -> Option<&'static Field> {
    fields().iter().find(|of| of.name == name)
}

/// Every name of ours.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    fields().iter().map(|field| field.name.as_str())
}

/// Every name of ingress-nginx that says a field.
pub(super) fn nginx_names() -> impl Iterator<Item = &'static str> {
    NGINX.iter().map(|row| row.name)
}

/// What the annotations of an object declare. A value that cannot be read leaves its field as if it were not there.
pub(crate) fn read(
    all: &BTreeMap<String, String>,
    object: &ObjectRef,
    findings: &mut Findings,
) -> PolicySpec {
    let mut ours = PolicySpec::default();
    for (key, value) in all {
        let name = key.strip_prefix(PREFIX);
        if let Some(of) = name.and_then(field_named) {
            match one(of, value, same) {
                Ok(said) => ours = said.over(&ours),
                Err(reason) => wrong(key, reason, object, findings),
            }
        }
    }
    let mut nginx = PolicySpec::default();
    for row in &NGINX {
        let key = format!("{NGINX_PREFIX}{}", row.name);
        let is_said = all.contains_key(&format!("{PREFIX}{}", row.field));
        let of = field_named(row.field);
        if let (Some(value), false, Some(of)) = (all.get(&key), is_said, of) {
            match one(of, value, row.ours) {
                Ok(said) => nginx = said.over(&nginx),
                Err(reason) => wrong(&key, reason, object, findings),
            }
        }
    }
    if nginx.hash_by.is_some() {
        nginx.balancing = None;
    }
    let stays = format!("{NGINX_PREFIX}affinity");
    if all.get(&stays).is_none_or(|value| value.trim() != "cookie") {
        nginx.affinity = None;
    } else if let Some(affinity) = &mut nginx.affinity
        && affinity.cookie.is_none()
    {
        affinity.cookie = policy::value::Token::read(NGINX_COOKIE).ok();
    }
    ours.laid_over(&nginx)
}

fn one(
    of: &Field,
    value: &str,
    ours: fn(&str) -> Result<String, String>,
) -> Result<PolicySpec, String> {
    bounded(value)?;
    let read = ours(value.trim()).and_then(|value| of.read(&value));
    read.map_err(|reason| format!("{:?} is not {}: {reason}", printable(value, 64), of.value))
}

fn wrong(key: &str, reason: String, object: &ObjectRef, findings: &mut Findings) {
    let message = format!("{reason}; the default is used");
    findings.error(object, &field(key), "InvalidAnnotation", message);
}

/// Tells what of a declaration does not go together.
pub(crate) fn contradictions(spec: &PolicySpec, object: &ObjectRef, findings: &mut Findings) {
    for contradiction in spec.build().1 {
        let message = format!(
            "{} ({}); the default is used",
            contradiction.reason, contradiction.field
        );
        findings.error(object, "metadata.annotations", "InvalidAnnotation", message);
    }
}

/// Rows of the documentation: name, value, text, example, names of ingress-nginx.
pub(super) fn rows() -> impl Iterator<Item = [String; 5]> {
    fields().iter().map(|of| {
        let nginx: Vec<_> = NGINX
            .iter()
            .filter(|row| row.field == of.name)
            .map(|row| format!("`{}`", row.name))
            .collect();
        [
            of.name.clone(),
            of.value.clone(),
            of.doc.clone(),
            of.example.clone(),
            nginx.join(", "),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_can_be_hashed() {
        for (value, expected) in [
            ("$binary_remote_addr", "client-ip"),
            ("$request_uri", "path-and-query"),
            ("${request_uri}", "path-and-query"),
            ("$uri", "path"),
            ("$host", "header:host"),
            ("$http_x_user_id", "header:x-user-id"),
            ("$cookie_session", "cookie:session"),
            ("$arg_id", "query:id"),
        ] {
            assert_eq!(hash_by(value).as_deref(), Ok(expected));
        }
        for bad in [
            "",
            "$",
            "$host$uri",
            "$cookie_",
            "$arg_a;b",
            "$upstream_addr",
            "path",
        ] {
            assert!(hash_by(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_of_nginx_name_fields_that_there_are() {
        for row in &NGINX {
            assert!(names().any(|name| name == row.field), "{}", row.field);
        }
    }
}
