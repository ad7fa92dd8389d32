//! The other tenant of a stand (I2): a host that is asked 50 times a second for as long as a row runs.
//!
//! Who asks, and the backend that answers, have a thread of their own, so that what the test is busy with does not count as
//! the proxy's time. Each request has a connection of its own: what stops accepting shows too. Requests are due at fixed
//! times, and time counts from when one is due; a proxy that stands still cannot hide it by being asked less.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::raw::{self, Plan};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// The host whose requests must always succeed.
pub(crate) const CANARY: &str = "canary.test";

/// Between two requests.
const PERIOD: Duration = Duration::from_millis(20);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to ask, and what a connection begins with.
#[derive(Debug, Clone, Copy)]
struct Target {
    addr: SocketAddr,
    greeting: &'static str,
}

enum Command {
    Ask(Target),
    /// Answered when nothing is in progress any more.
    Rest(oneshot::Sender<()>),
}

/// One request.
struct Asked {
    due: Instant,
    took: Duration,
    failure: Option<String>,
}

/// What became of requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) asked: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) p99: Duration,
    pub(crate) worst: Duration,
}

/// The thread, its backend, and what it saw.
pub(crate) struct Canary {
    pub(crate) backend: Arc<Backend>,
    commands: mpsc::Sender<Command>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Canary {
    /// Starts the backend. Nothing is asked yet. The thread ends when this is dropped.
    pub(crate) async fn start() -> Self {
        let (started, backend) = oneshot::channel();
        let (commands, received) = mpsc::channel(4);
        let asked = Arc::default();
        let seen = Arc::clone(&asked);
        let run = async move {
            let backend = Arc::new(Backend::start("canary").await);
            let _ = started.send(Arc::clone(&backend));
            ask_on_command(received, seen).await;
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(Default::default())
                .unwrap();
            runtime.block_on(run);
        });
        Self {
            backend: backend.await.unwrap(),
            commands,
            asked,
        }
    }

    /// From now on asks, 50 times a second.
    pub(crate) async fn ask(&self, addr: SocketAddr, greeting: &'static str) {
        let command = Command::Ask(Target { addr, greeting });
        assert!(self.commands.send(command).await.is_ok());
    }

    /// Asks no more, and waits for what is in progress.
    pub(crate) async fn rest(&self) {
        let (done, rests) = oneshot::channel();
        assert!(self.commands.send(Command::Rest(done)).await.is_ok());
        let _ = rests.await;
    }

    /// What became of requests that were due after `since`.
    pub(crate) fn figures(&self, since: Option<Instant>) -> Figures {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = asked
            .iter()
            .filter(|one| since.is_none_or(|since| one.due >= since));
        let mut times: Vec<Duration> = counted.clone().map(|one| one.took).collect();
        times.sort_unstable();
        Figures {
            asked: times.len(),
            failures: counted.filter_map(|one| one.failure.clone()).collect(),
            p99: percentile(&times, 99),
            worst: times.last().copied().unwrap_or_default(),
        }
    }
}

/// Of sorted times.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

async fn ask_on_command(mut commands: mpsc::Receiver<Command>, seen: Arc<Mutex<Vec<Asked>>>) {
    let mut target = None;
    let mut ticks = tokio::time::interval(PERIOD);
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Ask(wanted)) => {
                    target = Some(wanted);
                    ticks.reset_immediately();
                }
                Some(Command::Rest(done)) => {
                    target = None;
                    while running.join_next().await.is_some() {}
                    let _ = done.send(());
                }
            },
            due = ticks.tick(), if target.is_some() => {
                while running.try_join_next().is_some() {}
                let (seen, due) = (Arc::clone(&seen), due.into_std());
                running.spawn_local(async move {
                    let failure = match target {
                        Some(target) => ask_once(target).await.err(),
                        None => None,
                    };
                    let took = due.elapsed();
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(Asked { due, took, failure });
                });
            }
        }
    }
}

async fn ask_once(target: Target) -> Result<(), String> {
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(target.addr)).await;
    let mut stream = connected
        .map_err(|_| "not accepted in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let request = request(target.greeting, "/");
    let got = raw::exchange(&mut stream, Plan::new(request).patience(PATIENCE)).await;
    match got.statuses() == [200] && got.answers[0].body == b"canary" {
        true => Ok(()),
        false => Err(got.summary()),
    }
}

/// A request for the host.
pub(crate) fn request(greeting: &str, path: &str) -> String {
    format!("{greeting}GET {path} HTTP/1.1\r\nHost: {CANARY}\r\n\r\n")
}
