//! Clients that stay at their endpoint by a cookie.

use super::balancing::token;
use super::value::{BOOLEAN, boolean};
use super::{Annotation, Closes, Policy};
use routing_table::policy::{Affinity, AffinityMode};
use std::time::Duration;

/// The name that ingress-nginx gives it.
const COOKIE: &str = "INGRESSCOOKIE";
/// Browsers forget a cookie after 400 days at the latest.
const LONGEST: u64 = 400 * 24 * 3600;

/// What the annotations say of the cookie. Nothing of it counts before affinity is asked for.
#[derive(Debug, Clone)]
pub(crate) struct AffinityWish {
    wanted: bool,
    affinity: Affinity,
    expires: Option<Duration>,
}

impl Default for AffinityWish {
    fn default() -> Self {
        Self {
            wanted: false,
            affinity: Affinity::new(COOKIE),
            expires: None,
        }
    }
}

impl AffinityWish {
    /// What comes of it.
    pub(super) fn affinity(&self) -> Option<Affinity> {
        self.wanted.then(|| Affinity {
            max_age: self.affinity.max_age.or(self.expires),
            ..self.affinity.clone()
        })
    }
}

fn cookie(policy: &mut Policy) -> &mut Affinity {
    &mut policy.affinity.affinity
}

/// A value of a cookie's attribute: nothing that ends it.
fn attribute(value: &str) -> Result<&str, String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b";,\"\\".contains(&byte);
    match !value.is_empty() && value.len() <= 1024 && value.bytes().all(fits) {
        true => Ok(value),
        false => Err("it has a character that an attribute of a cookie cannot have".into()),
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds: u64 = value.parse().map_err(|_| "it is no whole number")?;
    match seconds {
        1..=LONGEST => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("it is not from 1 to {LONGEST}")),
    }
}

pub(super) const AFFINITY: Annotation = Annotation {
    name: "affinity",
    nginx: &["affinity"],
    value: "`cookie`",
    doc: "A client stays at its endpoint by a cookie ([how](balancing.md#staying)). Default: it does not.",
    example: "cookie",
    closes: Closes::Nothing,
    apply: |policy, value| {
        if value != "cookie" {
            return Err("there is no other kind".into());
        }
        policy.affinity.wanted = true;
        Ok(())
    },
};

pub(super) const AFFINITY_MODE: Annotation = Annotation {
    name: "affinity-mode",
    nginx: &["affinity-mode"],
    value: "`balanced` or `persistent`",
    doc: "Whether new endpoints take over some of the clients (`balanced`) or none. Default `balanced`.",
    example: "persistent",
    closes: Closes::Nothing,
    apply: |policy, value| {
        cookie(policy).mode = match value {
            "balanced" => AffinityMode::Balanced,
            "persistent" => AffinityMode::Persistent,
            _ => return Err("there is no such mode".into()),
        };
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE: Annotation = Annotation {
    name: "affinity-cookie",
    nginx: &["session-cookie-name"],
    value: "a name",
    doc: "Name of the cookie. Default `INGRESSCOOKIE`, as ingress-nginx.",
    example: "route",
    closes: Closes::Nothing,
    apply: |policy, value| {
        cookie(policy).cookie = token(value)?;
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE_DOMAIN: Annotation = Annotation {
    name: "affinity-cookie-domain",
    nginx: &["session-cookie-domain"],
    value: "a domain",
    doc: "`Domain` of the cookie. Default: none.",
    example: "shop.example.com",
    closes: Closes::Nothing,
    apply: |policy, value| {
        cookie(policy).domain = Some(attribute(value)?.into());
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE_EXPIRES: Annotation = Annotation {
    name: "affinity-cookie-expires",
    nginx: &["session-cookie-expires"],
    value: "seconds",
    doc: "The same as `affinity-cookie-max-age`, which goes before it.",
    example: "172800",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.affinity.expires = Some(seconds(value)?);
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE_MAX_AGE: Annotation = Annotation {
    name: "affinity-cookie-max-age",
    nginx: &["session-cookie-max-age"],
    value: "seconds",
    doc: "How long a client keeps the cookie. Default: until it is closed.",
    example: "172800",
    closes: Closes::Nothing,
    apply: |policy, value| {
        cookie(policy).max_age = Some(seconds(value)?);
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE_PATH: Annotation = Annotation {
    name: "affinity-cookie-path",
    nginx: &["session-cookie-path"],
    value: "a path",
    doc: "`Path` of the cookie. Default: the path of the rule.",
    example: "/",
    closes: Closes::Nothing,
    apply: |policy, value| {
        if !value.starts_with('/') {
            return Err("it does not begin with /".into());
        }
        cookie(policy).path = Some(attribute(value)?.into());
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE_SAMESITE: Annotation = Annotation {
    name: "affinity-cookie-samesite",
    nginx: &["session-cookie-samesite"],
    value: "`None`, `Lax` or `Strict`",
    doc: "`SameSite` of the cookie. Default: not given.",
    example: "Lax",
    closes: Closes::Nothing,
    apply: |policy, value| {
        let known = ["None", "Lax", "Strict"].into_iter();
        let mut named = known.filter(|known| known.eq_ignore_ascii_case(value));
        cookie(policy).same_site = Some(named.next().ok_or("it is none of them")?);
        Ok(())
    },
};

pub(super) const AFFINITY_COOKIE_SECURE: Annotation = Annotation {
    name: "affinity-cookie-secure",
    nginx: &["session-cookie-secure"],
    value: BOOLEAN,
    doc: "Whether the cookie is for HTTPS only. Default: where it was set over HTTPS.",
    example: "true",
    closes: Closes::Nothing,
    apply: |policy, value| {
        cookie(policy).secure = Some(boolean(value)?);
        Ok(())
    },
};
