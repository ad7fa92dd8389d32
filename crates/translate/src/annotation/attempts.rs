//! How often a request is tried.

use super::{Annotation, Closes};

/// More attempts than this only make an outage worse.
const MAX_ATTEMPTS: u32 = 10;

pub(super) const ATTEMPTS: Annotation = Annotation {
    name: "attempts",
    nginx: &["proxy-next-upstream-tries"],
    value: "a number from 1 to 10, or `0` for 10",
    doc: "Endpoints to try when one cannot be connected to, or closed a connection at rest. Default 3.",
    example: "2",
    closes: Closes::Nothing,
    apply: |policy, value| {
        let number: u32 = value
            .parse()
            .map_err(|_| "it is no whole number".to_owned())?;
        if number > MAX_ATTEMPTS {
            return Err(format!("it is more than {MAX_ATTEMPTS}"));
        }
        policy.retry.attempts = if number == 0 { MAX_ATTEMPTS } else { number };
        Ok(())
    },
};
