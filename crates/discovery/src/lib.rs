//! Endpoints from the DNS: SRV and address records, asked for again when their TTL is over.
//!
//! [`Discovery`] keeps one task for each name that a table wants. Nothing here is ever waited for by a request: the last set
//! of endpoints stays in use, whatever the DNS does, for as long as `schedule` says.
//!
//! `records` makes endpoints of records (pure), `schedule` says what an answer means and when to ask again (pure),
//! `resolver` asks.

mod metrics;
mod records;
mod resolver;
mod schedule;

pub use schedule::Timing;

use metrics::Metrics;
use resolver::{Answer, Resolver};
use routing_table::{
    ClusterId, Discovery as Owner, DnsSource, Endpoint, EndpointSets, RoutingTable,
};
use schedule::{Effect, Schedule};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Updates that may wait for whoever publishes them.
const QUEUE: usize = 64;

/// What is new of one source; `None`: nothing could be learnt, the first time that it was asked for.
type News = (Arc<DnsSource>, Option<Vec<Endpoint>>);

/// The names that the current table wants, and what is known of them.
#[derive(Debug)]
pub struct Discovery {
    timing: Timing,
    metrics: Metrics,
    sources: BTreeMap<Arc<DnsSource>, Source>,
    /// Where the endpoints of each cluster come from.
    clusters: BTreeMap<ClusterId, Owner>,
    news: mpsc::Receiver<News>,
    sender: mpsc::Sender<News>,
}

/// A name that is asked for. Dropped, nobody asks any more.
#[derive(Debug)]
struct Source {
    task: JoinHandle<()>,
    clusters: BTreeSet<ClusterId>,
    /// `None` before there was an answer.
    endpoints: Option<Vec<Endpoint>>,
    /// It was asked for once, whatever came of it.
    was_asked: bool,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// Nothing is asked for before a table wants it.
    ///
    /// # Errors
    /// When the registry has its metrics already.
    pub fn new(timing: Timing, registry: &prometheus::Registry) -> prometheus::Result<Self> {
        let (sender, news) = mpsc::channel(QUEUE);
        Ok(Self {
            timing,
            metrics: Metrics::new(registry)?,
            sources: BTreeMap::new(),
            clusters: BTreeMap::new(),
            news,
            sender,
        })
    }

    /// Asks for what this table wants and no more for anything else. Gives the endpoints that are known already; clusters
    /// without an answer yet are absent.
    ///
    /// Must be called inside a tokio runtime.
    pub fn apply(&mut self, table: &RoutingTable) -> EndpointSets {
        let mut wanted: BTreeMap<Arc<DnsSource>, BTreeSet<ClusterId>> = BTreeMap::new();
        self.clusters.clear();
        for cluster in table.clusters().as_slice() {
            for source in cluster.discovery.dns() {
                let clusters = wanted.entry(Arc::clone(source)).or_default();
                clusters.insert(cluster.id.clone());
                let owner = cluster.discovery.clone();
                self.clusters.insert(cluster.id.clone(), owner);
            }
        }
        self.sources.retain(|source, _| {
            let stays = wanted.contains_key(source);
            if !stays {
                self.metrics.forget(source);
            }
            stays
        });
        for (source, clusters) in wanted {
            let (timing, metrics, sender) = (self.timing, &self.metrics, &self.sender);
            let entry = self.sources.entry(source);
            let source = entry.or_insert_with_key(|source| Source {
                task: tokio::spawn(ask(
                    Arc::clone(source),
                    timing,
                    metrics.clone(),
                    sender.clone(),
                )),
                clusters: BTreeSet::new(),
                endpoints: None,
                was_asked: false,
            });
            source.clusters = clusters;
        }
        self.metrics.sources.set(self.sources.len() as i64);
        self.known(self.clusters.keys())
    }

    /// What is known of these clusters. Those of which nothing is are absent.
    fn known<'a>(&self, clusters: impl IntoIterator<Item = &'a ClusterId>) -> EndpointSets {
        let known = clusters.into_iter().filter_map(|id| {
            let owner = self.clusters.get(id)?;
            let sources = owner.dns().iter();
            let answers = sources.filter_map(|source| self.sources.get(source)?.endpoints.as_ref());
            let mut answers = answers.peekable();
            if answers.peek().is_none() && owner.fixed().is_empty() {
                return None;
            }
            Some((id.clone(), merged(owner.fixed(), answers)))
        });
        known.collect()
    }

    /// Waits until endpoints have changed; gives those of the clusters of the last table. Safe to drop before it is ready.
    pub async fn changed(&mut self) -> EndpointSets {
        loop {
            // Never `None`: a sender is kept here.
            let Some((source, endpoints)) = self.news.recv().await else {
                std::future::pending::<()>().await;
                continue;
            };
            // What comes of a name that nobody wants any more is late.
            if let Some(known) = self.sources.get_mut(&source) {
                known.was_asked = true;
                let Some(endpoints) = endpoints else { continue };
                known.endpoints = Some(endpoints);
                let clusters = known.clusters.clone();
                return self.known(&clusters);
            }
        }
    }

    /// Waits until every name of the last table was asked for once, whatever came of it, or `limit` is over. Gives what is
    /// known by then: who serves a first table with it does not answer 503 while the first answers are on their way.
    pub async fn settled(&mut self, limit: Duration) -> EndpointSets {
        let mut learnt = BTreeSet::new();
        let settle = async {
            while self.sources.values().any(|source| !source.was_asked) {
                let Some((source, endpoints)) = self.news.recv().await else {
                    return;
                };
                if let Some(of) = self.sources.get_mut(&source) {
                    of.was_asked = true;
                    if let Some(endpoints) = endpoints {
                        learnt.extend(of.clusters.iter().cloned());
                        of.endpoints = Some(endpoints);
                    }
                }
            }
        };
        let _ = tokio::time::timeout(limit, settle).await;
        self.known(&learnt)
    }
}

/// All endpoints of several sources, each address once: as the first of them has it.
fn merged<'a>(
    fixed: &[Endpoint],
    answers: impl Iterator<Item = &'a Vec<Endpoint>>,
) -> Vec<Endpoint> {
    let mut all = fixed.to_vec();
    let mut seen: HashSet<SocketAddr> = fixed.iter().map(|endpoint| endpoint.addr).collect();
    for endpoint in answers.flatten() {
        if seen.insert(endpoint.addr) {
            all.push(endpoint.clone());
        }
    }
    all
}

/// Logs an answer that is of another kind than the one before; `again` if there was one.
fn say(source: &DnsSource, answer: &Answer, again: bool) {
    match answer {
        Answer::Failure(error) => {
            tracing::warn!(%source, error, "DNS lookup failed, the last answer stays in use");
        }
        Answer::Empty(_) => tracing::warn!(
            %source,
            "the DNS knows no such name, or nothing of it that could be used: there are no endpoints from it"
        ),
        Answer::Records(..) if again => tracing::info!(%source, "the DNS has answers again"),
        Answer::Records(..) => {}
    }
}

/// Asks for one name for ever.
async fn ask(source: Arc<DnsSource>, timing: Timing, metrics: Metrics, news: mpsc::Sender<News>) {
    let started = Instant::now();
    let mut resolver = Resolver::new(Arc::clone(&source), timing.timeout);
    let mut schedule = Schedule::new(timing);
    let mut told: Option<Vec<Endpoint>> = None;
    // Spreads the questions of many names and replicas; nothing secret hangs on it.
    let dice = RandomState::new();
    let mut throws = 0u64;
    metrics.confirmed(&source, started);
    let endpoints_in_use = metrics.endpoints.with_label_values(&[&source.to_string()]);
    let mut is_first = true;
    // What was logged of the answers last, so that each turn of things is told once.
    let mut said: Option<&'static str> = None;
    loop {
        let answer = resolver.ask().await;
        metrics.lookups.with_label_values(&[answer.word()]).inc();
        metrics.cut.inc_by(answer.left_out() as u64);
        if said != Some(answer.word()) {
            say(&source, &answer, said.is_some());
            said = Some(answer.word());
        }
        throws += 1;
        let (effect, wait) =
            schedule.answered(answer.kind(), started.elapsed(), dice.hash_one(throws));
        let next = match effect {
            Effect::Take => Some(answer.into_endpoints()),
            Effect::Empty => Some(Vec::new()),
            Effect::Keep => None,
        };
        if let Some(endpoints) = next
            && told.as_ref() != Some(&endpoints)
        {
            tracing::info!(%source, endpoints = endpoints.len(), "endpoints changed");
            endpoints_in_use.set(endpoints.len() as i64);
            told = Some(endpoints.clone());
            let news = news.send((Arc::clone(&source), Some(endpoints)));
            if news.await.is_err() {
                return;
            }
        } else if is_first && news.send((Arc::clone(&source), None)).await.is_err() {
            return;
        }
        is_first = false;
        metrics.confirmed(&source, started + schedule.confirmed());
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
}

#[cfg(test)]
mod tests;
