//! Writes into each `BackendPolicy` whether it is accepted. Only the leader writes, and only differences.
//!
//! What a policy means, and what is wrong with it, is found out by the translation; here it is only written down.

use crate::lease::Leading;
use crate::metrics::Metrics;
use crate::run::Report;
use api::BackendPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use translate::{Acceptance, ObjectKey};

/// Type of the condition.
const ACCEPTED: &str = "Accepted";
/// After a failure everything is looked at again after this time.
const RETRY: Duration = Duration::from_secs(5);
/// Least time between two writes of one status, when somebody else writes it too.
const REWRITE: Duration = Duration::from_secs(10);
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A failure that lasts is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Writes until `shutdown`. `leader` says when writing is ours.
pub async fn run(
    client: Client,
    mut report: watch::Receiver<Option<Report>>,
    leader: watch::Receiver<bool>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut leading = Leading::new(leader);
    let mut written: BTreeMap<ObjectKey, (Acceptance, Instant)> = BTreeMap::new();
    let mut logged: Option<Instant> = None;
    loop {
        let mut again = None;
        if leading.may_write().await {
            let policies = match &*report.borrow_and_update() {
                Some(report) => report.policies.clone(),
                None => BTreeMap::new(),
            };
            written.retain(|key, _| policies.contains_key(key));
            for (key, (acceptance, current)) in &policies {
                let Some(conditions) = conditions(acceptance, current, now()) else {
                    written.remove(key);
                    continue;
                };
                // What we wrote may not have come back yet, or somebody else writes it too.
                let before = written.get(key).filter(|(wrote, _)| wrote == acceptance);
                if before.is_some_and(|(_, at)| at.elapsed() < REWRITE) {
                    again = Some(REWRITE);
                    continue;
                }
                if shutdown.is_cancelled() || !leading.may_write().await {
                    break;
                }
                match write(&client, key, &conditions).await {
                    Ok(()) => {
                        written.insert(key.clone(), (acceptance.clone(), Instant::now()));
                        metrics.status_writes.with_label_values(&["ok"]).inc();
                    }
                    Err(error) => {
                        metrics.status_writes.with_label_values(&["error"]).inc();
                        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                            logged = Some(Instant::now());
                            tracing::warn!(policy = %key, error, "status was not written");
                        }
                        again = Some(RETRY);
                    }
                }
            }
        } else {
            written.clear();
        }
        let due = Instant::now() + again.unwrap_or(Duration::MAX / 4);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = report.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                changed = leading.changed() => match changed {
                    true => break,
                    false => return,
                },
                () = tokio::time::sleep_until(due), if again.is_some() => break,
                () = tokio::time::sleep(Leading::PULSE) => leading.alive().await,
            }
        }
    }
}

/// What the conditions should be, if they are not; those of other types stay.
fn conditions(acceptance: &Acceptance, current: &[Condition], now: Time) -> Option<Vec<Condition>> {
    let known = current.iter().find(|condition| condition.type_ == ACCEPTED);
    let status = match acceptance.is_accepted() {
        true => "True",
        false => "False",
    };
    let since = known
        .filter(|known| known.status == status)
        .map_or(now, |known| known.last_transition_time.clone());
    let wanted = Condition {
        type_: ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: acceptance.reason.to_owned(),
        message: acceptance.message.clone(),
        observed_generation: acceptance.generation,
        last_transition_time: since,
    };
    if known == Some(&wanted) {
        return None;
    }
    let others = current
        .iter()
        .filter(|condition| condition.type_ != ACCEPTED);
    Some(others.cloned().chain([wanted]).collect())
}

async fn write(client: &Client, key: &ObjectKey, conditions: &[Condition]) -> Result<(), String> {
    let api: Api<BackendPolicy> = Api::namespaced(client.clone(), &key.namespace);
    let patch = Patch::Merge(json!({ "status": { "conditions": conditions } }));
    let params = PatchParams::default();
    let patched = api.patch_status(&key.name, &params, &patch);
    match tokio::time::timeout(WRITE_TIMEOUT, patched).await {
        Ok(Ok(_)) => Ok(()),
        // It was deleted meanwhile.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a condition tells the time of day"
)]
fn now() -> Time {
    let now = k8s_openapi::jiff::Timestamp::now();
    // The API has whole seconds.
    Time(k8s_openapi::jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_condition_is_written_when_it_differs_and_keeps_its_time_while_its_status_stays() {
        let accepted = |generation| Acceptance {
            reason: "Accepted",
            message: "It is in force".to_owned(),
            generation: Some(generation),
        };
        let first = conditions(&accepted(1), &[], at(10)).unwrap();
        assert_eq!(
            (first[0].status.as_str(), &first[0].last_transition_time),
            ("True", &at(10))
        );
        assert_eq!(conditions(&accepted(1), &first, at(20)), None);
        let second = conditions(&accepted(2), &first, at(20)).unwrap();
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!(second[0].observed_generation, Some(2));
        let invalid = Acceptance {
            reason: "Invalid",
            message: "spec is missing".to_owned(),
            generation: Some(3),
        };
        let other = Condition {
            type_: "Other".to_owned(),
            ..first[0].clone()
        };
        let third = conditions(&invalid, &[other.clone(), second[0].clone()], at(30)).unwrap();
        assert_eq!(third[0], other);
        assert_eq!(
            (third[1].status.as_str(), &third[1].last_transition_time),
            ("False", &at(30))
        );
    }
}
