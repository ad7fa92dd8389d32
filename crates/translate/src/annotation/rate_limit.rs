//! How often one client may ask. It protects, so a limit that cannot be read closes its routes.

use super::access_list::NETWORKS;
use super::value::{EMPTY, networks};
use super::{Annotation, Closes};

const NUMBER: &str = "a whole number from 0 to 1000000";

pub(super) const LIMIT_RPS: Annotation = Annotation {
    name: "limit-rps",
    nginx: &["limit-rps"],
    value: NUMBER,
    doc: "Requests a second of one client address (IPv6: of one /64) to all that the Ingress serves, counted by each replica; \
          more get 429 with `Retry-After`, where ingress-nginx answers 503. 0 is no limit. Default 0.",
    example: "10",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.filters.per_second = limit(value)?;
        Ok(())
    },
};

pub(super) const LIMIT_RPM: Annotation = Annotation {
    name: "limit-rpm",
    nginx: &["limit-rpm"],
    value: NUMBER,
    doc: "The same by the minute; both may be given. Default 0.",
    example: "300",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.filters.per_minute = limit(value)?;
        Ok(())
    },
};

pub(super) const LIMIT_BURST_MULTIPLIER: Annotation = Annotation {
    name: "limit-burst-multiplier",
    nginx: &["limit-burst-multiplier"],
    value: NUMBER,
    doc: "A client that has rested may make so many times its limit at once, and one request more. Default 5.",
    example: "2",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.filters.burst_multiplier = number(value)?;
        Ok(())
    },
};

pub(super) const LIMIT_BURST: Annotation = Annotation {
    name: "limit-burst",
    nginx: &[],
    value: "a whole number from 1 to 1000000",
    doc: "Exactly so many requests at once instead. Default: what `limit-burst-multiplier` says.",
    example: "10",
    closes: Closes::Routes,
    apply: |policy, value| match number(value)? {
        0 => Err("no request would ever be served".into()),
        burst => {
            policy.filters.burst = Some(burst);
            Ok(())
        }
    },
};

pub(super) const LIMIT_ALLOWLIST: Annotation = Annotation {
    name: "limit-allowlist",
    nginx: &["limit-whitelist", "limit-allowlist"],
    value: NETWORKS,
    doc: "Clients that these limits do not hold for. Default: none.",
    example: "10.0.0.0/8",
    closes: Closes::Routes,
    apply: |policy, value| {
        // Nobody is exempt then, which is the strictest there is.
        if !value.is_empty() {
            policy.filters.unlimited = networks(value)?;
        }
        Ok(())
    },
};

/// 0 is no limit; nothing at all is a mistake, like every empty value of what protects.
fn limit(text: &str) -> Result<u32, String> {
    match text {
        "" => Err(EMPTY.into()),
        text => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("nothing but digits may be in it".into());
    }
    match text.parse() {
        Ok(number @ 0..=1_000_000) => Ok(number),
        _ => Err("it is too large".into()),
    }
}
