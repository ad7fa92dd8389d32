//! Bounded load: keep-alive clients that count what fails and who answered. They never retry.

use crate::client::{Client, request};
use bytes::Bytes;
use http::Method;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Requests answered 200.
    pub ok: u64,
    /// Everything else, with how often.
    pub failed: BTreeMap<String, u64>,
    /// Bodies of 200s, with how often.
    pub bodies: BTreeMap<String, u64>,
}

impl Outcome {
    /// How many failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.ok + self.failures()
    }

    fn merge(&mut self, other: Outcome) {
        self.ok += other.ok;
        for (key, count) in other.failed {
            *self.failed.entry(key).or_default() += count;
        }
        for (key, count) in other.bodies {
            *self.bodies.entry(key).or_default() += count;
        }
    }
}

/// A load that is running.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Outcome>>,
}

/// What to ask for, and how hard.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where; clients choose the first address that accepts.
    pub addrs: Vec<SocketAddr>,
    /// Host.
    pub host: String,
    /// Path.
    pub path: String,
    /// POST with a body every second time.
    pub posts: bool,
    /// Clients.
    pub clients: usize,
    /// Requests a second, over all clients.
    pub rate: u32,
    /// Most requests; the load ends by itself then.
    pub limit: u64,
}

impl Load {
    /// Starts a load.
    pub fn start(plan: Plan) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let tasks = (0..plan.clients)
            .map(|_| {
                tokio::spawn(one_client(
                    plan.clone(),
                    Arc::clone(&stop),
                    Arc::clone(&sent),
                ))
            })
            .collect();
        Self { stop, sent, tasks }
    }

    /// Requests begun so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many requests were begun.
    pub async fn reach(&self, count: u64) {
        let all_done = || self.tasks.iter().all(tokio::task::JoinHandle::is_finished);
        while self.sent() < count && !all_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops it and says what came of it.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.finish().await
    }

    /// Waits for its end and says what came of it.
    pub async fn finish(self) -> Outcome {
        let mut outcome = Outcome::default();
        for task in self.tasks {
            outcome.merge(task.await.expect("a client does not panic"));
        }
        outcome
    }
}

async fn one_client(plan: Plan, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Outcome {
    let mut outcome = Outcome::default();
    let every = Duration::from_secs_f64(plan.clients as f64 / f64::from(plan.rate));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut client: Option<Client> = None;
    loop {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) || sent.fetch_add(1, Ordering::Relaxed) >= plan.limit {
            return outcome;
        }
        let mut connected = match client.take() {
            Some(client) => client,
            None => match connect(&plan.addrs).await {
                Ok(client) => client,
                Err(error) => {
                    *outcome.failed.entry(error).or_default() += 1;
                    continue;
                }
            },
        };
        let post = plan.posts && outcome.total() % 2 == 1;
        let (method, body) = if post {
            (Method::POST, Bytes::from_static(b"payload"))
        } else {
            (Method::GET, Bytes::new())
        };
        match connected
            .send(request(method, &plan.host, &plan.path, body))
            .await
        {
            Ok(answer) if answer.status == 200 => {
                outcome.ok += 1;
                *outcome.bodies.entry(answer.text()).or_default() += 1;
                if !answer.closes() {
                    client = Some(connected);
                }
            }
            Ok(answer) => {
                *outcome
                    .failed
                    .entry(format!("status {}", answer.status.as_u16()))
                    .or_default() += 1;
            }
            Err(error) => *outcome.failed.entry(error).or_default() += 1,
        }
    }
}

async fn connect(addrs: &[SocketAddr]) -> Result<Client, String> {
    let mut last = Err("no address".to_owned());
    for addr in addrs {
        last = Client::connect(*addr).await;
        if last.is_ok() {
            break;
        }
    }
    last
}
