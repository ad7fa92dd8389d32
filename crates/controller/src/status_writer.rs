//! Writes the addresses that Ingresses are reached at into their status. Only the leader writes, and only differences.

use crate::addresses::{Status, address_or_name, of_node};
use crate::lease::Leading;
use crate::metrics::Metrics;
use crate::run::Report;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use translate::ObjectKey;

/// After a failure everything is looked at again, first after this time.
const RETRY: Duration = Duration::from_secs(2);
/// Everything is looked at this often even when nothing is reported: a node may get another address.
const RECHECK: Duration = Duration::from_secs(60);
/// Least time between a write that failed and the next.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A failure that lasts is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Longest time until a write of ours is reported back.
const ECHO: Duration = Duration::from_secs(30);
/// Least time between two writes of one status, when somebody else writes it too.
const REWRITE: Duration = Duration::from_secs(10);
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// The Service in front of us (named to [`crate::Options::publish_service`]).
    Service,
    /// These: IP addresses or host names.
    Given(Vec<String>),
    /// The node we run on: its external, else its internal address.
    Node(String),
}

/// Settings of the writer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the addresses come from.
    pub addresses: Addresses,
    /// Take the addresses away when the leader stops. With several replicas that takes names out of DNS at every rollout,
    /// until the next leader writes them again.
    pub clear_on_shutdown: bool,
}

/// A status we wrote, or found to be right.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    /// What we wrote.
    wrote: Status,
    /// What stood there before. Until we hear otherwise, that is what is reported.
    before: Status,
    at: Instant,
}

/// What to do about one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is right.
    Nothing,
    /// Write it.
    Write,
    /// Write it, but not so soon after the last time.
    Later,
}

/// Pure: the clock is passed in.
fn step(current: &Status, wanted: &Status, written: Option<&Written>, now: Instant) -> Step {
    if current == wanted {
        return Step::Nothing;
    }
    match written {
        // We only have not heard of it yet.
        Some(written)
            if written.wrote == *wanted
                && written.before == *current
                && now < written.at + ECHO =>
        {
            Step::Nothing
        }
        // Somebody else writes it too.
        Some(written) if written.wrote == *wanted && now < written.at + REWRITE => Step::Later,
        _ => Step::Write,
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    /// There is no such Ingress any more.
    Gone,
    Failed,
}

struct Writer {
    client: Client,
    metrics: Metrics,
    shutdown: CancellationToken,
    leading: Leading,
    /// By Ingress.
    written: BTreeMap<ObjectKey, Written>,
    /// The addresses of the node, and when they were read.
    node: Option<(Status, Instant)>,
    /// When a failure was last logged.
    logged: Option<Instant>,
}

/// Writes until `shutdown`, then clears if told so. `leader` says when writing is ours.
pub async fn run(
    client: Client,
    settings: Settings,
    mut report: watch::Receiver<Option<Report>>,
    leader: watch::Receiver<bool>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let leading = Leading::new(leader);
    let written = BTreeMap::new();
    let mut writer = Writer {
        client,
        metrics,
        shutdown: shutdown.clone(),
        leading,
        written,
        node: None,
        logged: None,
    };
    let mut wait = RECHECK;
    let mut due = Instant::now();
    loop {
        if writer.leading.may_write().await {
            if due <= Instant::now() {
                let current = report.borrow_and_update().clone();
                let settled = match &current {
                    Some(current) => writer.write_all(&settings, current).await,
                    None => true,
                };
                // A failure is tried again soon, then ever less often.
                wait = if settled {
                    RECHECK
                } else if wait >= RECHECK {
                    RETRY
                } else {
                    (wait * 2).min(RECHECK)
                };
                due = Instant::now() + wait;
            }
        } else {
            writer.written.clear();
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = report.changed() => {
                if changed.is_err() {
                    break;
                }
                due = Instant::now();
            }
            changed = writer.leading.changed() => {
                if !changed {
                    break;
                }
                due = Instant::now();
            }
            () = tokio::time::sleep(Leading::PULSE) => writer.leading.alive().await,
        }
    }
    if settings.clear_on_shutdown && writer.leading.may_write().await {
        let current = report.borrow().clone().unwrap_or_default();
        writer.clear_all(&current).await;
    }
}

impl Writer {
    /// Brings every status to what it should be; says whether nothing has to be tried again.
    async fn write_all(&mut self, settings: &Settings, report: &Report) -> bool {
        let Some(wanted) = self.addresses(settings, report).await else {
            return false;
        };
        if wanted.is_empty() {
            // A load balancer without an address yet, or a Service that is being replaced. What stands there stays: taking
            // it away would take names out of DNS.
            return true;
        }
        let mut settled = true;
        for (key, current) in &report.claimed {
            match step(current, &wanted, self.written.get(key), Instant::now()) {
                Step::Nothing if current == &wanted => self.note(key, current, &wanted),
                Step::Nothing => {}
                Step::Later => settled = false,
                Step::Write => {
                    if !self.may_write().await {
                        return false;
                    }
                    match self.write(key, &wanted).await {
                        Outcome::Written => self.note(key, current, &wanted),
                        Outcome::Gone => {}
                        Outcome::Failed => settled = false,
                    }
                }
            }
        }
        settled & self.clear_unclaimed(report).await
    }

    /// An Ingress that moved to another class is not ours to advertise any more.
    async fn clear_unclaimed(&mut self, report: &Report) -> bool {
        let mut settled = true;
        let left: Vec<_> = self
            .written
            .keys()
            .filter(|key| !report.claimed.contains_key(*key))
            .cloned()
            .collect();
        for key in left {
            let Some(written) = self.written.get(&key) else {
                continue;
            };
            // Whatever else stands there now is somebody else's.
            let ours = report
                .unclaimed
                .get(&key)
                .is_some_and(|current| *current == written.wrote || *current == written.before);
            if ours {
                if !self.may_write().await {
                    return false;
                }
                if self.write(&key, &[]).await == Outcome::Failed {
                    settled = false;
                    continue;
                }
            }
            self.written.remove(&key);
        }
        settled
    }

    async fn clear_all(&mut self, report: &Report) {
        let written = std::mem::take(&mut self.written);
        for (key, written) in written {
            let current = report.claimed.get(&key);
            let ours = current
                .is_some_and(|current| *current == written.wrote || *current == written.before);
            // There is no time to try again.
            if ours
                && (!self.leading.may_write().await
                    || self.write(&key, &[]).await == Outcome::Failed)
            {
                return;
            }
        }
    }

    /// The addresses every status should have; `None` when they cannot be found out.
    async fn addresses(&mut self, settings: &Settings, report: &Report) -> Option<Status> {
        let name = match &settings.addresses {
            Addresses::Service => return Some(report.service_addresses.clone()),
            Addresses::Given(given) => {
                return Some(
                    given
                        .iter()
                        .map(|address| address_or_name(address))
                        .collect(),
                );
            }
            Addresses::Node(name) => name,
        };
        if let Some((status, at)) = &self.node
            && at.elapsed() < RECHECK / 2
        {
            return Some(status.clone());
        }
        let error = match tokio::time::timeout(
            WRITE_TIMEOUT,
            Api::<Node>::all(self.client.clone()).get(name),
        )
        .await
        {
            Ok(Ok(node)) => {
                let status = of_node(&node);
                self.node = Some((status.clone(), Instant::now()));
                return Some(status);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if self.may_log() {
            tracing::warn!(
                node = name,
                error,
                "node cannot be read, so no status is written"
            );
        }
        None
    }

    fn may_log(&mut self) -> bool {
        let may = self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if may {
            self.logged = Some(Instant::now());
        }
        may
    }

    async fn may_write(&mut self) -> bool {
        !self.shutdown.is_cancelled() && self.leading.may_write().await
    }

    fn note(&mut self, key: &ObjectKey, before: &Status, wrote: &Status) {
        let same = self
            .written
            .get(key)
            .is_some_and(|written| written.wrote == *wrote && written.before == *before);
        if !same {
            let written = Written {
                wrote: wrote.clone(),
                before: before.clone(),
                at: Instant::now(),
            };
            self.written.insert(key.clone(), written);
        }
    }

    /// Writes one status. After a failure it waits, so that there are not thousands of them at once.
    async fn write(
        &mut self,
        key: &ObjectKey,
        addresses: &[IngressLoadBalancerIngress],
    ) -> Outcome {
        let api: Api<Ingress> = Api::namespaced(self.client.clone(), &key.namespace);
        let ingress = if addresses.is_empty() {
            json!(null)
        } else {
            json!(addresses)
        };
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        let params = PatchParams::default();
        let result =
            tokio::time::timeout(WRITE_TIMEOUT, api.patch_status(&key.name, &params, &patch)).await;
        let (label, outcome, error) = match result {
            Ok(Ok(_)) => ("ok", Outcome::Written, None),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                ("gone", Outcome::Gone, None)
            }
            Ok(Err(error)) => ("error", Outcome::Failed, Some(error.to_string())),
            Err(_) => ("timeout", Outcome::Failed, Some("no answer".to_owned())),
        };
        self.metrics.status_writes.with_label_values(&[label]).inc();
        if let Some(error) = error {
            if self.may_log() {
                tracing::warn!(ingress = %key, error, "status was not written");
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(AFTER_FAILURE) => {}
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_when_it_differs_and_not_again_before_it_is_heard_of() {
        let status = |ip: &str| vec![address_or_name(ip)];
        let (ours, old, other) = (
            status("192.0.2.1"),
            status("192.0.2.2"),
            status("192.0.2.3"),
        );
        let at = Instant::now();
        let written = Written {
            wrote: ours.clone(),
            before: old.clone(),
            at,
        };
        assert_eq!(step(&ours, &ours, None, at), Step::Nothing);
        assert_eq!(step(&old, &ours, None, at), Step::Write);
        assert_eq!(
            step(&old, &ours, Some(&written), at),
            Step::Nothing,
            "not heard of yet"
        );
        assert_eq!(
            step(&old, &ours, Some(&written), at + ECHO),
            Step::Write,
            "it never came"
        );
        assert_eq!(
            step(&other, &ours, Some(&written), at),
            Step::Later,
            "somebody wrote over it"
        );
        assert_eq!(
            step(&other, &ours, Some(&written), at + REWRITE),
            Step::Write
        );
        assert_eq!(
            step(&old, &other, Some(&written), at),
            Step::Write,
            "our address changed"
        );
    }
}
