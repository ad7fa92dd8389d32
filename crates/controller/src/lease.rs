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

/// What was seen of a lease, and what follows. Pure: the clock is passed in.
#[derive(Debug, Default)]
struct Election {
    /// The lease as it was last seen, and since when it has been like that.
    observed: Option<(LeaseSpec, Instant)>,
    /// When we last began to write it with success.
    renewed: Option<Instant>,
}

impl Election {
    fn step(&mut self, seen: &LeaseSpec, identity: &str, now: Instant) -> Step {
        let since = match &self.observed {
            Some((known, since)) if known == seen => *since,
            _ => {
                self.observed = Some((seen.clone(), now));
                now
            }
        };
        let seconds = seen
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        match seen.holder_identity.as_deref().unwrap_or_default() {
            "" => Step::Take,
            holder if holder == identity => Step::Renew,
            _ if now.duration_since(since) >= seconds.map_or(DURATION, Duration::from_secs) => {
                Step::Take
            }
            _ => Step::Wait,
        }
    }

    /// Until when we lead, if nothing more is heard.
    fn until(&self) -> Option<Instant> {
        self.renewed.map(|at| at + RENEW_DEADLINE)
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
    let mut election = Election::default();
    let mut logged = false;
    let say = |leads: bool| {
        metrics.leader.set(leads.into());
        leader.send_if_modified(|known| std::mem::replace(known, leads) != leads);
    };
    while !shutdown.is_cancelled() {
        let started = now();
        let until = election.until();
        let result = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = sleep_until(until) => {
                election.renewed = None;
                say(false);
                continue;
            }
            result = tokio::time::timeout(RETRY * 2, attempt(&api, &lease, &mut election)) => result,
        };
        match result {
            Ok(Ok(held)) => {
                logged = false;
                election.renewed = held.then_some(started);
            }
            failed => {
                if !logged {
                    let error = failed.map(|failed| failed.err());
                    tracing::warn!(lease = %lease.name, ?error, "lease cannot be read or written");
                    logged = true;
                }
            }
        }
        let until = election.until();
        say(until.is_some_and(|until| now() < until));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = sleep_until(until) => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    resigned.cancelled().await;
    if *leader.borrow() {
        // The next leader need not wait for the lease to run out.
        let _ = tokio::time::timeout(RETRY, resign(&api, &lease)).await;
        say(false);
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// One try; says whether we hold the lease.
async fn attempt(
    api: &Api<Lease>,
    name: &LeaseName,
    election: &mut Election,
) -> kube::Result<bool> {
    let written = match api.get_opt(&name.name).await? {
        None => {
            let metadata = ObjectMeta {
                name: Some(name.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec(name, None)),
            };
            api.create(&PostParams::default(), &lease).await
        }
        Some(mut lease) => {
            let seen = lease.spec.take().unwrap_or_default();
            if election.step(&seen, &name.identity, now()) == Step::Wait {
                return Ok(false);
            }
            lease.spec = Some(spec(name, Some(&seen)));
            api.replace(&name.name, &PostParams::default(), &lease)
                .await
        }
    };
    match written {
        Ok(_) => Ok(true),
        // Another replica was faster; what it wrote carries a newer resource version.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells a writer whether it may write. A process that was stopped for a while must not act on what it knew before, so
/// after a gap in its own time the writer waits for the election to look again.
#[derive(Debug)]
pub(crate) struct Leading {
    leader: watch::Receiver<bool>,
    checked: Instant,
}

impl Leading {
    /// A writer must say that it is alive this often, by [`Leading::alive`] or by [`Leading::may_write`].
    pub(crate) const PULSE: Duration = Duration::from_secs(1);
    /// After a longer gap, the process was stopped. A write takes 5 s at most.
    const GAP: Duration = Duration::from_secs(8);

    pub(crate) fn new(leader: watch::Receiver<bool>) -> Self {
        Self {
            leader,
            checked: now(),
        }
    }

    /// Notes that the writer is alive.
    pub(crate) async fn alive(&mut self) {
        if now().duration_since(self.checked) > Self::GAP {
            tokio::time::sleep(RETRY * 2).await;
        }
        self.checked = now();
    }

    /// Whether the next write is ours to make.
    pub(crate) async fn may_write(&mut self) -> bool {
        self.alive().await;
        *self.leader.borrow_and_update()
    }

    /// Waits for a change; `false` if there will be none.
    pub(crate) async fn changed(&mut self) -> bool {
        self.leader.changed().await.is_ok()
    }
}

/// The lease in our name, after it was `seen` like this.
fn spec(name: &LeaseName, seen: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let ours = seen.filter(|seen| seen.holder_identity.as_deref() == Some(&name.identity));
    let transitions = seen.and_then(|seen| seen.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(name.identity.clone()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        acquire_time: ours
            .and_then(|ours| ours.acquire_time.clone())
            .or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(
            transitions.saturating_add(i32::from(seen.is_some() && ours.is_none())),
        ),
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
        api.replace(&name.name, &PostParams::default(), &lease)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn held_by(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[track_caller]
    fn check(holder: &str, seconds_seen: u64, expected: Step) {
        let (mut election, start, spec) =
            (Election::default(), Instant::now(), held_by(holder, 15));
        election.step(&spec, "me", start);
        let step = election.step(&spec, "me", start + Duration::from_secs(seconds_seen));
        assert_eq!(step, expected, "{holder:?} unchanged for {seconds_seen} s");
    }

    #[test]
    fn a_lease_is_taken_only_when_its_holder_was_not_seen_for_its_duration() {
        check("", 0, Step::Take);
        check("me", 100, Step::Renew);
        check("other", 14, Step::Wait);
        check("other", 15, Step::Take);
        assert_eq!(
            Election::default().step(&LeaseSpec::default(), "me", Instant::now()),
            Step::Take
        );
    }

    #[test]
    fn a_renewal_counts_from_when_we_saw_it_whatever_time_it_says() {
        let (mut election, start) = (Election::default(), Instant::now());
        let mut spec = held_by("other", 15);
        for n in 0..20 {
            // The holder's clock is far behind ours.
            spec.renew_time = Some(MicroTime(Timestamp::from_second(n).unwrap()));
            let now = start + Duration::from_secs(10 * n as u64);
            assert_eq!(election.step(&spec, "me", now), Step::Wait);
        }
        assert_eq!(
            election.step(&spec, "me", start + Duration::from_secs(190 + 15)),
            Step::Take
        );
    }

    #[test]
    fn leading_ends_before_others_may_lead() {
        let start = Instant::now();
        let election = Election {
            renewed: Some(start),
            ..Election::default()
        };
        assert!(election.until().unwrap() + RETRY < start + DURATION);
    }

    #[test]
    fn a_new_holder_is_a_transition() {
        let name = LeaseName {
            namespace: "a".into(),
            name: "b".into(),
            identity: "me".into(),
        };
        let transitions = |seen: Option<&LeaseSpec>| spec(&name, seen).lease_transitions;
        assert_eq!(transitions(None), Some(0));
        assert_eq!(
            transitions(Some(&LeaseSpec {
                lease_transitions: Some(3),
                ..held_by("other", 15)
            })),
            Some(4)
        );
        assert_eq!(
            transitions(Some(&LeaseSpec {
                lease_transitions: Some(3),
                ..held_by("me", 15)
            })),
            Some(3)
        );
    }
}
