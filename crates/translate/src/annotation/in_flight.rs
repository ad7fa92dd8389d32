//! How many requests an endpoint gets at once, and how long others wait.

use super::value::{DURATION, duration};
use super::{Annotation, Closes, Policy};
use routing_table::InFlightLimit;

/// More cannot be meant.
const MOST: u32 = 1_000_000;

fn number(value: &str) -> Result<u32, String> {
    let number: u32 = value
        .parse()
        .map_err(|_| "it is no whole number".to_owned())?;
    if (1..=MOST).contains(&number) {
        Ok(number)
    } else {
        Err(format!("it is not from 1 to {MOST}"))
    }
}

fn limit(policy: &mut Policy) -> &mut InFlightLimit {
    policy.limits.in_flight.get_or_insert_default()
}

pub(super) const MAX_IN_FLIGHT: Annotation = Annotation {
    name: "max-in-flight",
    nginx: &[],
    value: "a number from 1 to 1000000",
    doc: "Most requests in progress at one endpoint, from one replica. More wait; those beyond `max-queue`, and those that waited \
          for `queue-timeout`, are answered 503 with `Retry-After`. Requests of Ingresses without this limit do not count. Default \
          no limit.",
    example: "100",
    closes: Closes::Nothing,
    apply: |policy, value| {
        limit(policy).requests = number(value)?;
        Ok(())
    },
};

pub(super) const MAX_QUEUE: Annotation = Annotation {
    name: "max-queue",
    nginx: &[],
    value: "a number from 1 to 1000000",
    doc: "Most requests that wait because of `max-in-flight`, for all endpoints of the Service's port. Default 100.",
    example: "500",
    closes: Closes::Nothing,
    apply: |policy, value| {
        limit(policy).queue = number(value)?;
        Ok(())
    },
};

pub(super) const QUEUE_TIMEOUT: Annotation = Annotation {
    name: "queue-timeout",
    nginx: &[],
    value: DURATION,
    doc: "Longest wait because of `max-in-flight`. Default 1s.",
    example: "250ms",
    closes: Closes::Nothing,
    apply: |policy, value| {
        limit(policy).wait = duration(value)?;
        Ok(())
    },
};
