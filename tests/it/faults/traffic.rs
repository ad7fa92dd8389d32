//! Requests at a steady pace, whether the ones before were answered or not, so that one backend that hangs does not hold up
//! those who ask the others. They are never retried.

use crate::load_stand::{Reader, connect};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longest wait of a client.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) addr: SocketAddr,
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    /// Requests a second.
    pub(super) rate: u32,
    /// Every second one is a POST.
    pub(super) posts: bool,
    /// It ends by itself after so many.
    pub(super) most: usize,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Shot {
    /// When it began, since the traffic did.
    pub(super) begun: Duration,
    pub(super) took: Duration,
    pub(super) is_post: bool,
    /// Who answered with 200, or what else happened.
    pub(super) answer: Result<String, String>,
}

/// Requests that have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Shots(pub(super) Vec<Shot>);

/// Traffic under way.
pub(super) struct Traffic {
    since: Instant,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Shot>>,
}

type Idle = Arc<Mutex<Vec<Reader<TcpStream>>>>;

impl Traffic {
    /// Starts it.
    pub(super) fn start(plan: Plan) -> Self {
        let since = Instant::now();
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let idle = Idle::default();
            let mut ticks = interval(Duration::from_secs(1) / plan.rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut shots = JoinSet::new();
            for number in 0..plan.most {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => break,
                }
                let (plan, idle) = (plan.clone(), Arc::clone(&idle));
                let is_post = plan.posts && number % 2 == 1;
                shots.spawn(async move { shoot(&plan, &idle, is_post, since).await });
            }
            shots.join_all().await
        });
        Self { since, stop, task }
    }

    /// The time in which shots tell when they began.
    pub(super) fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// Begins no more, and waits for what is under way.
    pub(super) async fn stop(self) -> Shots {
        let _ = self.stop.send(());
        Shots(self.task.await.expect("traffic does not panic"))
    }

    /// Waits for its end.
    pub(super) async fn finish(self) -> Shots {
        Shots(self.task.await.expect("traffic does not panic"))
    }
}

async fn shoot(plan: &Plan, idle: &Idle, is_post: bool, since: Instant) -> Shot {
    let begun = since.elapsed();
    let method = if is_post { "POST" } else { "GET" };
    let answer = timeout(PATIENCE, ask(plan, idle, method)).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer in 30 s".to_owned()));
    Shot {
        begun,
        took: since.elapsed() - begun,
        is_post,
        answer,
    }
}

async fn ask(plan: &Plan, idle: &Idle, method: &str) -> Result<String, String> {
    let say = |error: std::io::Error| error.to_string();
    let rested = idle.lock().unwrap().pop();
    let mut connection = match rested {
        Some(connection) => connection,
        None => connect(plan.addr).await.map_err(say)?,
    };
    let (host, path) = (plan.host, plan.path);
    let body = if method == "POST" { "payload" } else { "" };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    connection.send(request.as_bytes()).await.map_err(say)?;
    let head = connection.head().await.map_err(say)?;
    let head = head.ok_or("closed without an answer")?;
    let length = match method {
        "HEAD" => 0,
        _ => head.length(),
    };
    let body = connection.body(length).await.map_err(say)?;
    let status = head.second().to_owned();
    if !head.closes() {
        idle.lock().unwrap().push(connection);
    }
    match &*status {
        "200" => Ok(String::from_utf8_lossy(&body).into_owned()),
        _ => Err(format!("status {status}")),
    }
}

/// One request on a connection of its own: who answered with 200, or what else, and how long it took.
pub(super) async fn ask_once(
    addr: SocketAddr,
    host: &'static str,
    path: &'static str,
    method: &str,
) -> (Result<String, String>, Duration) {
    let plan = Plan {
        addr,
        host,
        path,
        rate: 1,
        posts: false,
        most: 1,
    };
    let start = Instant::now();
    let answer = timeout(PATIENCE, ask(&plan, &Idle::default(), method)).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer in 30 s".to_owned()));
    (answer, start.elapsed())
}

impl Shots {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that this holds for.
    pub(super) fn only(&self, wanted: impl Fn(&Shot) -> bool) -> Self {
        Self(self.0.iter().filter(|shot| wanted(shot)).cloned().collect())
    }

    /// Those that began in this time.
    pub(super) fn begun(&self, from: Duration, to: Duration) -> Self {
        self.only(|shot| (from..to).contains(&shot.begun))
    }

    /// Those that were not answered with 200.
    pub(super) fn failed(&self) -> Self {
        self.only(|shot| shot.answer.is_err())
    }

    /// What else they were answered with, and how often.
    pub(super) fn failures(&self) -> BTreeMap<&str, usize> {
        let mut failures = BTreeMap::new();
        for error in self.0.iter().filter_map(|shot| shot.answer.as_ref().err()) {
            *failures.entry(error.as_str()).or_default() += 1;
        }
        failures
    }

    /// Which part of them this backend answered, of all that were answered.
    pub(super) fn share(&self, name: &str) -> f64 {
        let answered = self.0.iter().filter_map(|shot| shot.answer.as_ref().ok());
        let by_it = answered.clone().filter(|who| *who == name).count();
        by_it as f64 / answered.count().max(1) as f64
    }

    /// How long so many percent of them took at most, in milliseconds.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let mut times: Vec<_> = self.0.iter().map(|shot| shot.took).collect();
        times.sort();
        let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}
