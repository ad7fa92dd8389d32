//! Leader election by a `coordination.k8s.io` Lease: one replica writes status and Events, all serve.
//!
//! As client-go does it, a lease is taken over when *we* have not seen it change for its whole duration by our own
//! monotonic clock; no other machine's clock is believed.

use crate::metrics::Metrics;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a lease is good for without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// The holder stops to act when it could not renew for this long; less than [`DURATION`], so there are never two.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// Which lease, and who we are.
#[derive(Debug, Clone)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Our name in it; unique among replicas.
    pub identity: String,
}

/// What was seen of a lease, and when it last changed.
#[derive(Debug, Clone, PartialEq)]
struct Observed {
    spec: LeaseSpec,
    since: Instant,
}

/// What to do about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is ours: renew it.
    Renew,
    /// It is free, or its holder has not been seen for its duration: take it.
    Take,
    /// It is another's.
    Wait,
}

fn step(observed: &Observed, identity: &str, now: Instant) -> Step {
    let holder = observed.spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = observed.spec.lease_duration_seconds.unwrap_or(DURATION.as_secs() as i32).max(0) as u64;
    match holder {
        "" => Step::Take,
        holder if holder == identity => Step::Renew,
        _ if now.duration_since(observed.since) >= Duration::from_secs(seconds) => Step::Take,
        _ => Step::Wait,
    }
}

/// Takes part in the election until `shutdown`; `leader` says whether we are it. Gives the lease up at the end, after
/// `resigned` was waited for, so that what the leader does last it still does as leader.
pub async fn elect(
    client: Client,
    lease: LeaseName,
    leader: watch::Sender<bool>,
    metrics: Metrics,
    shutdown: CancellationToken,
    resigned: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, &lease.namespace);
    let mut observed: Option<Observed> = None;
    let mut renewed: Option<Instant> = None;
    let mut logged = false;
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let held = match tokio::time::timeout(RETRY * 2, attempt(&api, &lease, &mut observed)).await {
            Ok(Ok(held)) => {
                logged = false;
                Some(held)
            }
            failed => {
                if !logged {
                    let error = failed.map(|failed| failed.err());
                    tracing::warn!(lease = %lease.name, ?error, "lease cannot be read or written");
                    logged = true;
                }
                None
            }
        };
        match held {
            Some(true) => renewed = Some(started),
            Some(false) => renewed = None,
            None => {}
        }
        let is_leader = renewed.is_some_and(|at| at.elapsed() < RENEW_DEADLINE);
        metrics.leader.set(is_leader.into());
        leader.send_if_modified(|known| std::mem::replace(known, is_leader) != is_leader);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    resigned.cancelled().await;
    if *leader.borrow() {
        // The next leader need not wait for the lease to run out.
        let _ = tokio::time::timeout(RETRY, resign(&api, &lease)).await;
        metrics.leader.set(0);
    }
}

/// One try; says whether we hold the lease.
async fn attempt(api: &Api<Lease>, name: &LeaseName, observed: &mut Option<Observed>) -> kube::Result<bool> {
    let Some(mut lease) = api.get_opt(&name.name).await? else {
        let metadata = ObjectMeta { name: Some(name.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec(name, None)) };
        api.create(&PostParams::default(), &lease).await?;
        return Ok(true);
    };
    let seen = lease.spec.clone().unwrap_or_default();
    if observed.as_ref().is_none_or(|known| known.spec != seen) {
        *observed = Some(Observed { spec: seen.clone(), since: Instant::now() });
    }
    // Set just above.
    let Some(known) = observed else { return Ok(false) };
    let step = step(known, &name.identity, Instant::now());
    if step == Step::Wait {
        return Ok(false);
    }
    lease.spec = Some(spec(name, (step == Step::Renew).then_some(&seen)));
    match api.replace(&name.name, &PostParams::default(), &lease).await {
        Ok(_) => Ok(true),
        // Another replica was faster; its write carries a newer resource version.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// A lease in our name; `ours` is it before, when it is only renewed.
fn spec(name: &LeaseName, ours: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(name.identity.clone()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        acquire_time: ours.and_then(|ours| ours.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: ours.and_then(|ours| ours.lease_transitions).or(Some(0)),
        ..LeaseSpec::default()
    }
}

async fn resign(api: &Api<Lease>, name: &LeaseName) -> kube::Result<()> {
    let mut lease = api.get(&name.name).await?;
    if let Some(spec) = &mut lease.spec
        && spec.holder_identity.as_deref() == Some(&name.identity)
    {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        api.replace(&name.name, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(holder: Option<&str>, seconds_seen: u64, expected: Step) {
        let since = Instant::now();
        let spec = LeaseSpec { holder_identity: holder.map(str::to_owned), lease_duration_seconds: Some(15), ..LeaseSpec::default() };
        let now = since + Duration::from_secs(seconds_seen);
        assert_eq!(step(&Observed { spec, since }, "me", now), expected, "{holder:?} unchanged for {seconds_seen} s");
    }

    #[test]
    fn a_lease_is_taken_only_when_its_holder_was_not_seen_for_its_duration() {
        check(None, 0, Step::Take);
        check(Some(""), 0, Step::Take);
        check(Some("me"), 100, Step::Renew);
        check(Some("other"), 14, Step::Wait);
        check(Some("other"), 15, Step::Take);
    }
}
