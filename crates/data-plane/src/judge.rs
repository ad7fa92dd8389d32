//! Where what becomes of real requests is brought before outlier detection and the circuit breaker, and where what they say is
//! put into effect. Only for clusters whose policy has one of them; for all others there is nothing here.
//!
//! Which replies count is decided here ([`reply_of`]), what they lead to in `balance`. What has nothing to do with the endpoint
//! (a client that left or was slow, a limit of ours, a connection that was closed at rest) is no reply at all.

use crate::error::ProxyError;
use crate::request_body::RequestBody;
use crate::upstream::{Entered, Upstream};
use crate::worker::Worker;
use balance::breaker::{Change, Phase, Trial};
use balance::outlier::{Why, may_eject, unanswered};
use balance::waiting::Ticket;
use balance::{Bar, EndpointState, Reply};
use http::StatusCode;
use routing_table::Policy;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What an attempt that failed so says of its endpoint. `at_rest`: it happened on a connection that most likely was closed
/// while it was at rest.
fn reply_of(error: ProxyError, at_rest: bool) -> Option<Reply> {
    match error {
        ProxyError::UpstreamClosed if at_rest => None,
        ProxyError::Connect
        | ProxyError::ConnectTimeout
        | ProxyError::UpstreamTls
        | ProxyError::UpstreamClosed
        | ProxyError::UpstreamCut
        | ProxyError::BadResponse(_)
        | ProxyError::FirstByteTimeout => Some(Reply::Nothing),
        // A stream may rest, and the client may be why.
        ProxyError::IdleTimeout => None,
        _ => None,
    }
}

/// One request at an endpoint that is judged.
#[derive(Debug)]
pub(crate) struct Judge {
    endpoint: Arc<EndpointState>,
    policy: Arc<Policy>,
    trial: Option<Trial>,
    attempt: Option<Attempt>,
    /// Its answer was good, as far as it has come.
    is_good: bool,
}

/// An attempt under way.
#[derive(Debug)]
struct Attempt {
    begun: Duration,
    asked: Rc<Asked>,
}

/// Since when the endpoint is to answer: since it can have the whole request.
pub(crate) struct Asked {
    worker: Rc<Worker>,
    endpoint: Arc<EndpointState>,
    stage: Cell<Stage>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The client has not sent all of the body.
    Sending,
    Waiting(Ticket, Duration),
    Over,
}

impl Asked {
    /// The client has sent everything: the endpoint has no excuse any more.
    pub(crate) fn all_sent(&self) {
        if let Stage::Sending = self.stage.get() {
            let now = self.worker.clock();
            let ticket = self.endpoint.conduct().asked(now);
            self.stage.set(Stage::Waiting(ticket, now));
        }
    }

    /// Ends the wait; tells since when it was.
    fn end(&self, now: Duration) -> Option<Duration> {
        match self.stage.replace(Stage::Over) {
            Stage::Waiting(ticket, since) => {
                self.endpoint.conduct().left(ticket, now);
                Some(since)
            }
            Stage::Sending | Stage::Over => None,
        }
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stage.get().fmt(f)
    }
}

impl Judge {
    pub(crate) fn new(
        endpoint: Arc<EndpointState>,
        policy: Arc<Policy>,
        trial: Option<Trial>,
    ) -> Box<Self> {
        Box::new(Self {
            endpoint,
            policy,
            trial,
            attempt: None,
            is_good: false,
        })
    }

    /// An attempt begins.
    fn begin(&mut self, worker: &Rc<Worker>, body: Option<&mut RequestBody>) {
        self.end_attempt(worker.now());
        let begun = worker.clock();
        let asked = Rc::new(Asked {
            worker: Rc::clone(worker),
            endpoint: Arc::clone(&self.endpoint),
            stage: Cell::new(Stage::Sending),
        });
        match body {
            Some(body) => body.tell_when_sent(&asked),
            None => asked.all_sent(),
        }
        self.attempt = Some(Attempt { begun, asked });
    }

    /// The attempt has ended; tells since when its answer was waited for.
    fn end_attempt(&mut self, now: Duration) -> Option<Duration> {
        self.attempt.as_ref()?.asked.end(now)
    }

    fn came(&mut self, upstream: &Upstream, reply: Reply) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let (now, begun) = (attempt.asked.worker.clock(), attempt.begun);
        let took = self.end_attempt(now).map(|since| now - since);
        self.is_good = reply.is_good();
        let conduct = self.endpoint.conduct();
        if let Some(config) = &self.policy.outlier
            && let Some(why) = conduct.outlier.came(reply, took, begun, config, now)
        {
            upstream.eject(&self.endpoint, why, now);
        }
        if let Some(config) = &self.policy.breaker {
            let change = match self.trial.take() {
                Some(trial) => conduct.tried(trial, reply, took, config, now),
                None => conduct.breaker.came(reply, took, begun, config, now),
            };
            upstream.put_into_effect(&self.endpoint, change, now);
        }
    }

    fn broke_off(&mut self, upstream: &Upstream, now: Duration) {
        let Some(attempt) = self
            .attempt
            .as_ref()
            .filter(|_| std::mem::take(&mut self.is_good))
        else {
            return;
        };
        let (conduct, begun) = (self.endpoint.conduct(), attempt.begun);
        if let Some(config) = &self.policy.outlier
            && let Some(why) = conduct.outlier.broke_off(begun, config)
        {
            upstream.eject(&self.endpoint, why, now);
        }
        if let Some(config) = &self.policy.breaker {
            let change = conduct.breaker.broke_off(begun, config, now);
            upstream.put_into_effect(&self.endpoint, change, now);
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if let Some(attempt) = &self.attempt {
            attempt.asked.end(attempt.asked.worker.now());
        }
        // It has come to nothing.
        if let Some(trial) = self.trial.take() {
            self.endpoint.conduct().breaker.give_back(trial);
        }
    }
}

impl Entered {
    /// An attempt begins at this endpoint. `body` is what it sends, if that may take a while.
    pub(crate) fn begin(&mut self, worker: &Rc<Worker>, mut body: Option<&mut RequestBody>) {
        if let Some(body) = &mut body {
            self.watch(body);
        }
        if let Some(judge) = &mut self.judge {
            judge.begin(worker, body);
        }
    }

    /// It has answered with this status.
    pub(crate) fn came(&mut self, status: StatusCode) {
        if let Some(judge) = &mut self.judge {
            judge.came(&self.upstream, Reply::of(status.as_u16()));
        }
    }

    /// It has accepted a connection that is then only relayed.
    pub(crate) fn connected(&mut self) {
        if let Some(judge) = &mut self.judge {
            judge.came(&self.upstream, Reply::Good);
        }
    }

    /// The attempt has failed. `at_rest`: most likely its connection was closed while it was at rest.
    pub(crate) fn failed(&mut self, error: ProxyError, at_rest: bool) {
        if let Some(judge) = &mut self.judge
            && let Some(reply) = reply_of(error, at_rest)
        {
            judge.came(&self.upstream, reply);
        }
    }

    /// Its answer broke off.
    pub(crate) fn broke_off(&mut self, error: ProxyError, now: Duration) {
        if let Some(judge) = &mut self.judge
            && reply_of(error, false).is_some()
        {
            judge.broke_off(&self.upstream, now);
        }
    }

    /// All of its answer has come.
    pub(crate) fn was_whole(&self) {
        if let Some(judge) = self.judge.as_ref().filter(|judge| judge.is_good) {
            judge.endpoint.conduct().outlier.was_whole();
        }
    }
}

impl Upstream {
    /// Ejects an endpoint, unless as many are out as may be.
    fn eject(&self, endpoint: &EndpointState, why: Why, now: Duration) {
        // One after the other: two must not both take the last place, nor one be taken out behind the back of a new policy.
        let _one = self.verdicts();
        let set = self.endpoints();
        let Some(config) = &set.policy().outlier else {
            return;
        };
        let out = set.all().iter().filter(|one| one.has(Bar::Ejected)).count();
        let is_known = set.all().iter().any(|one| one.addr() == endpoint.addr());
        if endpoint.has(Bar::Ejected)
            || !is_known
            || !may_eject(out, set.all().len(), config.max_ejected)
        {
            return;
        }
        let time = endpoint.conduct().outlier.eject(config, now);
        let why = format_args!("{why}; ejected for {time:?}");
        self.take_out(endpoint, Bar::Ejected, why, now);
    }

    /// Makes a breaker's state count. `change` says what is new.
    fn put_into_effect(&self, endpoint: &EndpointState, change: Option<Change>, now: Duration) {
        let Some(change) = change else {
            return;
        };
        let _one = self.verdicts();
        let breaker = &endpoint.conduct().breaker;
        if self.policy().breaker.is_none() {
            return breaker.close(now);
        }
        // What it is now, which may be more than this change.
        let is_closed = breaker.phase() == Phase::Closed;
        match change {
            Change::Opened(why) if !is_closed => {
                self.take_out(endpoint, Bar::Breaker, why, now);
            }
            Change::Closed if is_closed => {
                self.bring_back(endpoint, Bar::Breaker, "the trial went well", now);
            }
            Change::Opened(_) | Change::Closed => {}
            Change::StaysOpen | Change::HalfOpened => {
                let (cluster, endpoint) = (self.id(), endpoint.addr());
                tracing::debug!(%cluster, %endpoint, ?change, "breaker");
                self.refresh(now);
            }
        }
    }

    /// Looks at what has become due. For one thread, now and then.
    pub(crate) fn judge(&self, now: Duration) {
        let set = self.endpoints();
        for endpoint in set.all() {
            let conduct = endpoint.conduct();
            if let Some(config) = &set.policy().outlier {
                if !endpoint.has(Bar::Ejected) {
                    let why = conduct.outlier.look(config, now).or_else(|| {
                        let limit = config.unanswered?;
                        unanswered(endpoint, set.all(), limit, now)
                    });
                    if let Some(why) = why {
                        self.eject(endpoint, why, now);
                    }
                } else if conduct.outlier.is_served(now) {
                    conduct.back(Some(config), now);
                    self.bring_back(endpoint, Bar::Ejected, "its time is up", now);
                }
            }
            if let Some(config) = &set.policy().breaker {
                let waits = conduct.waiting.waits(now);
                let change = conduct.breaker.look(waits, config, now);
                self.put_into_effect(endpoint, change, now);
            }
        }
    }

    /// Lets everybody go who was judged by what this policy does not have any more.
    pub(crate) fn pardon(&self, policy: &Policy, now: Duration) {
        let _one = self.verdicts();
        for endpoint in self.endpoints().all() {
            if policy.outlier.is_none() && endpoint.has(Bar::Ejected) {
                endpoint.conduct().back(None, now);
                self.bring_back(endpoint, Bar::Ejected, "not judged any more", now);
            }
            if policy.breaker.is_none() && endpoint.has(Bar::Breaker) {
                endpoint.conduct().breaker.close(now);
                self.bring_back(endpoint, Bar::Breaker, "not judged any more", now);
            }
        }
    }
}
