//! Who wins when two objects want the same host or path: always the oldest, whatever order they came in.

use crate::settings::HostOwnership;
use routing_table::HostMatch;
use routing_table::matcher::host::parent;
use std::collections::HashMap;

/// Which namespace owns which host. Claims must come oldest first.
#[derive(Debug)]
pub(crate) struct HostOwners {
    rule: HostOwnership,
    owners: HashMap<HostMatch, String>,
    /// The first owner of an exact name below each parent: a wildcard would take that name's siblings.
    children: HashMap<Box<str>, String>,
}

impl HostOwners {
    pub(crate) fn new(rule: HostOwnership) -> Self {
        Self {
            rule,
            owners: HashMap::new(),
            children: HashMap::new(),
        }
    }

    /// Claims a host for a namespace.
    ///
    /// # Errors
    /// With the namespace that owns it already, or owns a host that overlaps with it.
    pub(crate) fn claim(&mut self, host: &HostMatch, namespace: &str) -> Result<(), String> {
        if self.rule == HostOwnership::Shared {
            return Ok(());
        }
        let overlapping = match host {
            HostMatch::Exact(name) => {
                parent(name).and_then(|parent| self.owners.get(&HostMatch::Wildcard(parent.into())))
            }
            HostMatch::Wildcard(suffix) => self.children.get(suffix),
            HostMatch::Any => None,
        };
        match self.owners.get(host).or(overlapping) {
            Some(owner) if owner != namespace => Err(owner.clone()),
            Some(_) | None => {
                self.owners
                    .entry(host.clone())
                    .or_insert_with(|| namespace.to_owned());
                if let HostMatch::Exact(name) = host
                    && let Some(parent) = parent(name)
                {
                    self.children
                        .entry(parent.into())
                        .or_insert_with(|| namespace.to_owned());
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(claims: &[(&str, &str, Result<(), &str>)]) {
        let mut owners = HostOwners::new(HostOwnership::Namespace);
        for (host, namespace, expected) in claims {
            let host = HostMatch::parse(host).unwrap_or(HostMatch::Any);
            assert_eq!(
                owners.claim(&host, namespace),
                expected.map_err(str::to_owned),
                "{host} by {namespace}"
            );
        }
    }

    #[test]
    fn the_first_namespace_owns_a_host() {
        check(&[
            ("shop.test", "a", Ok(())),
            ("shop.test", "a", Ok(())),
            ("shop.test", "b", Err("a")),
            ("other.test", "b", Ok(())),
        ]);
        check(&[
            ("", "a", Ok(())),
            ("", "b", Err("a")),
            ("shop.test", "b", Ok(())),
        ]);
    }

    #[test]
    fn a_wildcard_and_the_names_below_it_have_one_owner() {
        check(&[
            ("*.shop.test", "a", Ok(())),
            ("pay.shop.test", "b", Err("a")),
            ("pay.shop.test", "a", Ok(())),
        ]);
        check(&[
            ("pay.shop.test", "a", Ok(())),
            ("*.shop.test", "b", Err("a")),
            ("x.pay.shop.test", "b", Ok(())),
        ]);
    }

    #[test]
    fn shared_hosts_have_no_owner() {
        let mut owners = HostOwners::new(HostOwnership::Shared);
        for namespace in ["a", "b"] {
            assert_eq!(
                owners.claim(&HostMatch::Exact("shop.test".into()), namespace),
                Ok(())
            );
        }
    }
}
