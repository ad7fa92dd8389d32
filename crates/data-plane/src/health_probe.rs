//! Endpoints are probed, and their agents asked: on a thread of its own, so that busy workers and slow endpoints cannot hold
//! each other up.
//!
//! Here is who is checked: whatever the published table and its endpoint sets want, from the moment they have it. Each
//! endpoint has a task for each of its checks, so one that does not answer holds nobody up, and one question at a time.
//! `active` and `agent` are those tasks; what a row of results means is in `balance`, what comes of it in `health`.

mod active;
mod agent;
mod ask;
mod bytes;
mod grpc;
mod http;
mod http2;
mod patience;

use crate::Phase;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::publish::Current;
use crate::upstream::Upstream;
use crate::upstream_tls::{Reach, transport};
use balance::{Bar, Check, EndpointState, LastCheck};
use routing_table::{Cluster, ClusterId, Policy, ProxyVersion, UpstreamProtocol};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// How often it is seen to that every task still runs.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// What the thread is started with.
pub(crate) struct Setup {
    pub(crate) current: Current,
    /// Tells of updates.
    pub(crate) updates: watch::Receiver<()>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
}

/// Checks endpoints until the data plane stops.
pub(crate) fn run(mut setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    setup.metrics.runtimes.add("probes", runtime.handle());
    runtime.block_on(async {
        let mut running = Running::default();
        let mut ticks = tokio::time::interval(LOOK_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            running.follow(&setup);
            tokio::select! {
                changed = setup.updates.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                changed = setup.phase.changed() => {
                    if changed.is_err() || *setup.phase.borrow_and_update() == Phase::Stopped {
                        break;
                    }
                }
                _ = ticks.tick(), if !running.tasks.is_empty() => {}
            }
        }
    });
    Ok(())
}

/// How the endpoints of a cluster are spoken to.
#[derive(Debug, Clone)]
struct Way {
    reach: Reach,
    http2: bool,
    proxy_header: Option<ProxyVersion>,
}

impl Way {
    fn new(cluster: &Cluster, reach: &Reach) -> Self {
        Self {
            reach: reach.clone(),
            http2: cluster.protocol == UpstreamProtocol::Http2,
            proxy_header: cluster.proxy_header,
        }
    }

    fn is(&self, other: &Self) -> bool {
        let key = |way: &Self| {
            let id = match &way.reach {
                Reach::Plain => Some(transport(None)),
                Reach::Tls(connector) => Some(transport(Some(connector))),
                Reach::Closed => None,
            };
            (id, way.http2, way.proxy_header)
        };
        key(self) == key(other)
    }
}

/// One endpoint that is checked.
#[derive(Debug, Clone)]
struct Subject {
    upstream: Arc<Upstream>,
    state: Arc<EndpointState>,
    policy: Arc<Policy>,
    way: Way,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Subject {
    /// As [`crate::worker::Worker::now`].
    fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Whether the same is checked in the same way.
    fn is(&self, other: &Self, check: Check) -> bool {
        let (before, after) = (&self.policy, &other.policy);
        let same_check = match check {
            Check::Active => before.active_check == after.active_check && self.way.is(&other.way),
            Check::Agent => before.agent_check == after.agent_check,
        };
        same_check && Arc::ptr_eq(&self.state, &other.state)
    }

    /// Writes down and counts what came of a check.
    fn checked(&self, check: Check, kind: &'static str, passed: bool, why: Cow<'static, str>) {
        tracing::debug!(cluster = %self.upstream.id(), endpoint = %self.state.addr(), kind, passed, %why, "endpoint checked");
        self.metrics.transitions.probes.count(check, passed);
        let at = self.now();
        let last = LastCheck {
            kind,
            passed,
            why,
            at,
        };
        self.state.checked(check, last);
    }

    /// Takes back what a check has said that there is no more.
    fn release(&self, check: Check) {
        match check {
            Check::Active => {
                let (upstream, now) = (&self.upstream, self.now());
                upstream.bring_back(&self.state, Bar::Probe, NOT_CHECKED, now);
            }
            Check::Agent => agent::release(self),
        }
        self.state.forget_check(check);
    }
}

/// Why something is lifted that no check says any more.
const NOT_CHECKED: &str = "it is not checked any more";

/// Names a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    cluster: ClusterId,
    addr: SocketAddr,
    check: Check,
}

/// The tasks.
#[derive(Default)]
struct Running {
    tasks: HashMap<Key, (Subject, JoinHandle<()>)>,
}

impl Running {
    /// Ends the tasks of what is not to be checked any more, begins those of what is new, and those that have failed again.
    fn follow(&mut self, setup: &Setup) {
        let snapshot = setup.current.load_full();
        let mut wanted: HashMap<Key, Subject> = HashMap::new();
        let mut known: HashSet<*const EndpointState> = HashSet::new();
        for (cluster, upstream, reach) in snapshot.clusters() {
            let set = upstream.endpoints();
            known.extend(set.all().iter().map(Arc::as_ptr));
            let policy = set.policy();
            for state in set.all() {
                let subject = || Subject {
                    upstream: Arc::clone(upstream),
                    state: Arc::clone(state),
                    policy: Arc::clone(policy),
                    way: Way::new(cluster, reach),
                    metrics: Arc::clone(&setup.metrics),
                    clock: setup.clock.clone(),
                };
                let key = |check| Key {
                    cluster: cluster.id.clone(),
                    addr: state.addr(),
                    check,
                };
                if policy.active_check.is_some() {
                    wanted.insert(key(Check::Active), subject());
                } else if state.has(Bar::Probe) {
                    // Perhaps it was never probed: it was out from the beginning.
                    subject().release(Check::Active);
                }
                if policy.agent_check.is_some() {
                    wanted.insert(key(Check::Agent), subject());
                }
            }
        }
        self.tasks.retain(|key, (subject, task)| {
            let wanted = wanted.get(key);
            if wanted.is_some_and(|wanted| wanted.is(subject, key.check)) && !task.is_finished() {
                return true;
            }
            task.abort();
            // Another probe judges anew from where the last one was; what an agent has said only that agent takes back.
            let is_obsolete = wanted.is_none() || key.check == Check::Agent && !task.is_finished();
            if is_obsolete && known.contains(&Arc::as_ptr(&subject.state)) {
                subject.release(key.check);
            }
            false
        });
        for (key, subject) in wanted {
            self.tasks.entry(key).or_insert_with_key(|key| {
                let task = match key.check {
                    Check::Active => tokio::task::spawn_local(active::run(subject.clone())),
                    Check::Agent => tokio::task::spawn_local(agent::run(subject.clone())),
                };
                (subject, task)
            });
        }
    }
}

/// Reads an answer as each probe that reads one; for `fuzz`.
pub(crate) fn read_any(bytes: &[u8]) {
    grpc::serving_status(bytes);
    if let Ok(Some((length, status))) = http::head_of(bytes) {
        assert!(length <= bytes.len() && status < 1000);
    }
}
