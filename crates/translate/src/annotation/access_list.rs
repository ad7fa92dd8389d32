//! Which clients are served, by address. It protects, so a list that cannot be read, or is empty, closes its routes.

use super::value::networks;
use super::{Annotation, Closes};

/// How a list of networks is written.
pub(super) const NETWORKS: &str =
    "networks or addresses with commas between (`10.0.0.0/8, 2001:db8::/32`)";

pub(super) const ALLOW: Annotation = Annotation {
    name: "allow",
    nginx: &["whitelist-source-range", "allowlist-source-range"],
    value: NETWORKS,
    doc: "Clients that are served; everybody else gets 403. Behind `--trusted-proxy` and the PROXY protocol the client is \
          whom they name. Without it: everybody.",
    example: "10.0.0.0/8, 2001:db8::/32",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.filters.allow = networks(value)?;
        Ok(())
    },
};

pub(super) const DENY: Annotation = Annotation {
    name: "deny",
    nginx: &["denylist-source-range"],
    value: NETWORKS,
    doc: "Clients that get 403, whatever `allow` says.",
    example: "192.0.2.0/24",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.filters.deny = networks(value)?;
        Ok(())
    },
};
