//! Which endpoints are far: those that get requests only where the near ones of their priority cannot take them.
//!
//! Worked out when a set is made; no request looks at a zone. There is no distance between zones, only ours and the others.

use crate::here::Here;
use routing_table::{Endpoint, Policy, Serving};
use std::sync::Arc;

/// The share of the near endpoints that must be available for the far ones to get nothing: one of so many.
const LEAST_SHARE: usize = 3;

/// What makes an endpoint near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// What its source says whom it is for.
    Hint,
    /// Where it is.
    Place,
}

/// Tells near endpoints from far ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nearness<'a>(Option<(By, &'a str)>);

impl<'a> Nearness<'a> {
    /// For these endpoints, each with whether it can have requests. Hints are heeded as Kubernetes wants them to be: when all
    /// ready endpoints have some and one of them is for us.
    pub(crate) fn new<'e>(
        known: impl Iterator<Item = (&'e Endpoint, bool)> + Clone,
        policy: &Policy,
        here: &'a Here,
    ) -> Self {
        let Some(zone) = here.zone.as_deref() else {
            return Self(None);
        };
        let ready = known.filter(|(endpoint, _)| endpoint.serving == Serving::Ready);
        let all_hinted = ready
            .clone()
            .all(|(endpoint, _)| endpoint.for_zones.is_some());
        let by = [
            policy.prefers_zone.then_some(By::Place),
            all_hinted.then_some(By::Hint),
        ];
        let enough = |by: &By| {
            let near = ready
                .clone()
                .filter(|(endpoint, _)| is_near(endpoint, *by, zone));
            let (all, can) = near.fold((0, 0), |(all, can), (_, one_can)| {
                (all + 1, can + usize::from(one_can))
            });
            can > 0 && can * LEAST_SHARE >= all
        };
        // What the policy says goes before what a source suggests.
        Self(
            by.into_iter()
                .flatten()
                .next()
                .filter(enough)
                .map(|by| (by, zone)),
        )
    }

    pub(crate) fn is_far(self, endpoint: &Endpoint) -> bool {
        self.0
            .is_some_and(|(by, zone)| !is_near(endpoint, by, zone))
    }
}

fn is_near(endpoint: &Endpoint, by: By, zone: &str) -> bool {
    let is_ours = |name: &Arc<str>| **name == *zone;
    match by {
        By::Place => endpoint.zone.as_ref().is_some_and(is_ours),
        By::Hint => endpoint
            .for_zones
            .iter()
            .flat_map(|zones| zones.iter())
            .any(is_ours),
    }
}

#[cfg(test)]
#[path = "tests/zone.rs"]
mod tests;
