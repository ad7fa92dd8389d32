//! Backends that die, stop, refuse, hang and come back, behind the real binary: what clients notice of it.
//!
//! `TIDEGATE_FULL=1` runs them with their full numbers. Times are those of a machine that does other things as well, so they
//! are printed, and bounded by what a machine twice as slow would take.

mod backend;

use backend::Process;
use bytes::Bytes;
use http::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::client::{Client, get, request};
use test_support::process::free_port;
use test_support::{Backend, Tidegate};
use tokio::net::TcpListener;

/// What outlier detection is told where a test has it.
const JUDGED: &str = "outlierDetection: {consecutiveErrors: 3, ejection: 60s}";

fn is_full() -> bool {
    std::env::var_os("TIDEGATE_FULL").is_some()
}

/// A tidegate in front of these endpoints.
struct Stand {
    tidegate: Tidegate,
    addr: SocketAddr,
    directory: tempfile::TempDir,
    rest: String,
}

fn configuration(port: u16, endpoints: &[SocketAddr], rest: &str) -> String {
    let lines: Vec<_> = endpoints.iter().map(|addr| format!("'{addr}'")).collect();
    let route = "routes: [{backend: web, timeouts: {firstByte: 60s}}]";
    format!(
        "listeners: [{{port: {port}}}]\n{route}\nbackends:\n  web:\n    static: [{}]\n{rest}\n",
        lines.join(", ")
    )
}

impl Stand {
    /// `policy` in YAML, on one line.
    async fn start(name: &str, endpoints: &[SocketAddr], policy: &str) -> Self {
        let rest = format!("    policy: {{{policy}}}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tidegate.yaml");
        let port = free_port();
        std::fs::write(&file, configuration(port, endpoints, &rest)).unwrap();
        let config = format!("--config={}", file.display());
        let args = ["serve", &config, "--access-log=off"];
        let tidegate = Tidegate::start(name, &args).ready().await;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            tidegate,
            addr,
            directory,
            rest,
        }
    }

    /// Other endpoints from now on.
    fn change(&self, endpoints: &[SocketAddr]) {
        let file = self.directory.path().join("tidegate.yaml");
        let beside = file.with_extension("new");
        let text = configuration(self.addr.port(), endpoints, &self.rest);
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, file).unwrap();
    }

    /// Why this endpoint gets nothing, as `/backends` has it.
    async fn reasons(&self, endpoint: SocketAddr) -> Vec<String> {
        let answer = get(self.tidegate.admin, "admin", "/backends")
            .await
            .unwrap();
        let all: Value = serde_json::from_slice(&answer.body).unwrap();
        let endpoints = all["clusters"][0]["endpoints"].as_array().unwrap();
        let one = endpoints
            .iter()
            .find(|one| one["addr"] == endpoint.to_string());
        let reasons = one.unwrap()["reasons"].as_array().cloned();
        let reasons = reasons.unwrap_or_default();
        reasons.iter().map(Value::to_string).collect()
    }

    /// Waits until it is out; how long that took.
    async fn out(&self, endpoint: SocketAddr, since: Instant) -> Duration {
        while self.reasons(endpoint).await.is_empty() {
            let waited = since.elapsed();
            let log = || self.tidegate.logged();
            assert!(waited < Duration::from_secs(20), "it stays in:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        since.elapsed()
    }
}

/// One request as its client saw it.
#[derive(Clone)]
struct Seen {
    begun: Instant,
    took: Duration,
    /// The body of a 200, or what went wrong.
    came: Result<String, String>,
}

/// Keep-alive clients, each with one request after the other, for as long as told.
struct Crowd {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    fn start(addr: SocketAddr, method: Method, clients: usize, rate: u32) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let every = Duration::from_secs_f64(clients as f64 / f64::from(rate));
        let tasks = (0..clients).map(|_| {
            let (seen, stop, method) = (Arc::clone(&seen), Arc::clone(&stop), method.clone());
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(every);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                let mut client = None;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    ticks.tick().await;
                    let begun = Instant::now();
                    let came = ask(addr, &mut client, &method).await;
                    let took = begun.elapsed();
                    seen.lock().unwrap().push(Seen { begun, took, came });
                }
            })
        });
        let tasks = tasks.collect();
        Self { seen, stop, tasks }
    }

    async fn reach(&self, count: usize) {
        while self.seen.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What was begun since.
    fn since(&self, when: Instant) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|one| one.begun >= when)
            .cloned()
            .collect()
    }

    /// Ends it; those that wait for an answer are left alone.
    async fn stop(self) -> Vec<Seen> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        for task in self.tasks {
            let _ = tokio::time::timeout_at(deadline, task).await;
        }
        self.seen.lock().unwrap().clone()
    }
}

async fn ask(
    addr: SocketAddr,
    client: &mut Option<Client>,
    method: &Method,
) -> Result<String, String> {
    let mut connected = match client.take() {
        Some(client) => client,
        None => Client::connect(addr).await?,
    };
    let body = match *method {
        Method::POST => Bytes::from_static(b"payload"),
        _ => Bytes::new(),
    };
    let answer = connected
        .send(request(method.clone(), "a.test", "/", body))
        .await?;
    let text = answer.text();
    if !answer.closes() {
        *client = Some(connected);
    }
    match answer.status.as_u16() {
        200 => Ok(text),
        other => Err(format!("status {other}")),
    }
}

fn failures(seen: &[Seen]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for failed in seen.iter().filter_map(|one| one.came.as_ref().err()) {
        *all.entry(failed.clone()).or_insert(0) += 1;
    }
    all
}

fn percentile(seen: &[Seen], percent: usize) -> Duration {
    let mut times: Vec<_> = seen.iter().map(|one| one.took).collect();
    times.sort();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).copied().unwrap_or_default()
}

/// The share of requests that this backend answered, in percent.
fn share(seen: &[Seen], name: &str) -> f64 {
    let answered = seen.iter().filter_map(|one| one.came.as_ref().ok());
    let its = answered.clone().filter(|came| *came == name).count();
    100.0 * its as f64 / answered.count().max(1) as f64
}

fn four(delay: Duration) -> Vec<Process> {
    let names = ["one", "two", "three", "four"];
    names.map(|name| Process::start(name, delay)).into()
}

fn addresses(processes: &[Process]) -> Vec<SocketAddr> {
    processes.iter().map(|process| process.addr).collect()
}

/// E1.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_killed_costs_no_get() {
    let backends = four(Duration::from_millis(2));
    let stand = Stand::start("killed", &addresses(&backends), JUDGED).await;
    let (gets, rate) = if is_full() {
        (20_000, 1_000)
    } else {
        (4_000, 800)
    };
    let crowd = Crowd::start(stand.addr, Method::GET, 16, rate);
    let posts = Crowd::start(stand.addr, Method::POST, 4, 100);
    crowd.reach(gets / 4).await;
    let killed = Instant::now();
    backends[3].signal("KILL");
    let out = stand.out(backends[3].addr, killed).await;
    crowd.reach(gets).await;
    let (seen, posts) = (crowd.stop().await, posts.stop().await);
    let lost = failures(&posts);
    println!(
        "kill -9 of one of 4: out after {out:.0?}; {} GETs, {} failed; {} POSTs, {lost:?} failed",
        seen.len(),
        failures(&seen).values().sum::<usize>(),
        posts.len(),
    );
    assert_eq!(failures(&seen), BTreeMap::new());
    // No more than were under way: one for each client.
    assert!(lost.values().sum::<usize>() <= 4, "{lost:?}");
    assert!(out <= Duration::from_secs(2), "{out:?}");
}

/// E2.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_stopped_is_ejected_while_its_requests_wait() {
    let backends = four(Duration::from_millis(2));
    let stand = Stand::start("stopped", &addresses(&backends), JUDGED).await;
    let crowd = Crowd::start(stand.addr, Method::GET, 32, 800);
    crowd.reach(800).await;
    let stopped = Instant::now();
    backends[3].signal("STOP");
    let out = stand.out(backends[3].addr, stopped).await;
    // All of those that came so far may wait there.
    let others = Crowd::start(stand.addr, Method::GET, 8, 400);
    others.reach(800).await;
    let after = others.stop().await;
    let waiting = crowd.since(stopped);
    let share = share(&after, "four");
    println!(
        "kill -STOP of one of 4: ejected after {out:.1?}; of {} requests after that {share:.1} % went there, {} failed, p99 {:.1?}",
        after.len(),
        failures(&after).values().sum::<usize>(),
        percentile(&after, 99),
    );
    assert_eq!(failures(&waiting), BTreeMap::new());
    assert!(out <= Duration::from_secs(3), "{out:?}");
    assert!(
        share <= 1.0 && after.len() > 100,
        "{share} of {}",
        after.len()
    );
    // Who waits gets an answer when it goes on.
    backends[3].signal("CONT");
    let seen = crowd.stop().await;
    assert_eq!(failures(&seen), BTreeMap::new());
    let late = seen.iter().filter(|one| one.took > Duration::from_secs(1));
    assert!(late.count() >= 3, "those that waited were answered");
}

/// E3: a queue that is full drops what comes, as a host does that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_drops_connections_costs_no_request() {
    let backends = four(Duration::ZERO);
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    silent.listen(1).unwrap();
    let gone = silent.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    let is_full_up = loop {
        assert!(held.len() < 16);
        let connect = tokio::net::TcpStream::connect(gone);
        match tokio::time::timeout(Duration::from_millis(300), connect).await {
            Ok(connected) => held.push(connected.unwrap()),
            Err(_) => break true,
        }
    };
    assert!(is_full_up);
    let mut endpoints = addresses(&backends);
    endpoints[3] = gone;
    let stand = Stand::start("dropped", &endpoints, JUDGED).await;
    let begun = Instant::now();
    let crowd = Crowd::start(stand.addr, Method::GET, 32, 600);
    let out = stand.out(gone, begun).await;
    // Those that had begun by then have come back.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let settled = Instant::now();
    crowd.reach(if is_full() { 5_000 } else { 3_000 }).await;
    let after = crowd.since(settled);
    let seen = crowd.stop().await;
    let first: Vec<_> = seen
        .iter()
        .filter(|one| one.begun < settled)
        .cloned()
        .collect();
    println!(
        "SYNs dropped: out after {out:.1?}; {} requests, {} failed; p99 {:.1?} until then, {:.1?} after",
        seen.len(),
        failures(&seen).values().sum::<usize>(),
        percentile(&first, 99),
        percentile(&after, 99),
    );
    assert_eq!(failures(&seen), BTreeMap::new());
    assert!(percentile(&first, 99) <= Duration::from_millis(2_500));
    assert!(percentile(&after, 99) <= Duration::from_millis(100));
}

/// E4.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_costs_no_request_of_any_method() {
    let backends = four(Duration::ZERO);
    let mut endpoints = addresses(&backends);
    endpoints[3] = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let stand = Stand::start("refused", &endpoints, "").await;
    for method in [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ] {
        let crowd = Crowd::start(stand.addr, method.clone(), 8, 800);
        crowd.reach(500).await;
        let seen = crowd.stop().await;
        println!(
            "refused, {method}: {} requests, {:?} failed",
            seen.len(),
            failures(&seen)
        );
        assert_eq!(failures(&seen), BTreeMap::new());
    }
}

/// E5.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_answers_is_waited_for_as_long_as_was_said() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = hanging.local_addr().unwrap();
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let holding = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = hanging.accept().await {
            holding.lock().unwrap().push(stream);
        }
    });
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    let text = configuration(port, &[endpoint], "").replace("firstByte: 60s", "firstByte: 1s");
    std::fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let _tidegate = Tidegate::start("hangs", &["serve", &config, "--access-log=off"])
        .ready()
        .await;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    for method in [Method::POST, Method::GET] {
        let before = accepted.lock().unwrap().len();
        let begun = Instant::now();
        let came = ask(addr, &mut None, &method).await;
        let (took, tries) = (begun.elapsed(), accepted.lock().unwrap().len() - before);
        println!("never answers, {method}: {came:?} after {took:.0?}, {tries} attempt(s)");
        assert_eq!(came, Err("status 504".to_owned()));
        assert_eq!(tries, 1, "nothing that was sent is sent again");
        assert!(
            took >= Duration::from_millis(990) && took <= Duration::from_millis(1_400),
            "{took:?}"
        );
    }
}

/// E9, and the other way round: five against fifty milliseconds, and then they change places.
#[tokio::test(flavor = "multi_thread")]
async fn the_quick_get_most_and_who_becomes_slow_gets_little() {
    let (fast, slow) = (Duration::from_millis(5), Duration::from_millis(50));
    let two = [Process::start("a", fast), Process::start("b", slow)];
    let stand = Stand::start("ewma", &addresses(&two), "balancing: peak_ewma").await;
    let crowd = Crowd::start(stand.addr, Method::GET, 8, 300);
    crowd.reach(600).await;
    let seen = crowd.since(Instant::now() - Duration::from_secs(60));
    let first = share(&seen, "a");
    two[0].take(slow, Duration::ZERO).await;
    two[1].take(fast, Duration::ZERO).await;
    let swapped = Instant::now();
    let mut took = None;
    while swapped.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let lately = crowd.since(Instant::now() - Duration::from_millis(500));
        if lately.len() > 20 && share(&lately, "b") > 80.0 {
            took = Some(swapped.elapsed());
            break;
        }
    }
    println!(
        "5 against 50 ms by peak_ewma: {first:.1} % to the quick one; swapped after {took:.1?}"
    );
    assert!(first > 80.0, "{first}");
    assert!(took.is_some());
    crowd.stop().await;

    let backends = four(Duration::from_millis(2));
    let stand = Stand::start("slower", &addresses(&backends), "balancing: peak_ewma").await;
    let crowd = Crowd::start(stand.addr, Method::GET, 8, 400);
    crowd.reach(400).await;
    backends[3]
        .take(Duration::from_millis(100), Duration::from_millis(200))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let settled = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = crowd.since(settled);
    let share = share(&after, "four");
    println!(
        "200 +-100 ms at one of 4: its share is {share:.1} % of {} after 5 s",
        after.len()
    );
    assert!(share < 10.0, "{share}");
    crowd.stop().await;
}

/// E10.
#[tokio::test(flavor = "multi_thread")]
async fn all_down_and_back() {
    let mut backends = four(Duration::ZERO);
    let stand = Stand::start("all-down", &addresses(&backends), JUDGED).await;
    let crowd = Crowd::start(stand.addr, Method::GET, 16, 400);
    crowd.reach(800).await;
    let steady = connects(&stand).await;
    let ports: Vec<_> = backends
        .iter()
        .map(|one| (one.name.clone(), one.addr.port()))
        .collect();
    let down = Instant::now();
    backends.clear();
    let time = if is_full() { 30 } else { 5 };
    tokio::time::sleep(Duration::from_secs(time)).await;
    let before = connects(&stand).await;
    let meanwhile = crowd.since(down + Duration::from_millis(100));
    let back = Instant::now();
    let backends: Vec<_> = ports
        .iter()
        .map(|(name, port)| Process::start_at(name, *port, Duration::ZERO))
        .collect();
    let up = Instant::now();
    let mut took = None;
    while took.is_none() {
        assert!(
            up.elapsed() < Duration::from_secs(20),
            "{}",
            stand.tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        let lately = crowd.since(Instant::now() - Duration::from_millis(100));
        if lately.len() > 10 && failures(&lately).is_empty() {
            took = Some(up.elapsed());
        }
    }
    let took = took.unwrap();
    crowd.stop().await;
    let failed = failures(&meanwhile);
    println!(
        "all down for {time} s: {failed:?}, p99 {:.1?}; back after {took:.1?}; {} connects while steady, {} while down",
        percentile(&meanwhile, 99),
        steady,
        before - steady,
    );
    assert!(
        failed
            .keys()
            .all(|what| what == "status 502" || what == "status 503"),
        "{failed:?}"
    );
    assert!(percentile(&meanwhile, 99) <= Duration::from_millis(200));
    assert!(took <= Duration::from_secs(4), "{took:?}");
    let opened = futures_sum(&backends).await;
    println!(
        "{opened} connections opened by {:.1?} after the return",
        back.elapsed()
    );
    // As many as there are clients would do; twice that is the bound.
    assert!(opened <= 2 * 16 * 4, "{opened}");
}

async fn connects(stand: &Stand) -> u64 {
    stand
        .tidegate
        .metric("tidegate_upstream_connects_total")
        .await as u64
}

async fn futures_sum(backends: &[Process]) -> u64 {
    let mut sum = 0;
    for backend in backends {
        sum += backend.connections().await;
    }
    sum
}

/// E11.
#[tokio::test(flavor = "multi_thread")]
async fn scaling_from_fifty_to_one_and_back_costs_no_request() {
    let mut backends = Vec::new();
    for n in 0..50 {
        backends.push(Backend::start(&format!("b{n}")).await);
    }
    let all: Vec<_> = backends.iter().map(|backend| backend.addr).collect();
    let stand = Stand::start("scaled", &all, "").await;
    let crowd = Crowd::start(stand.addr, Method::GET, 16, 400);
    let (rounds, total) = if is_full() { (60, 20_000) } else { (8, 3_000) };
    for round in 0..rounds {
        let few = round % 2 == 0;
        stand.change(if few { &all[round % 50..][..1] } else { &all });
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    crowd.reach(total).await;
    let seen = crowd.stop().await;
    let reloads = "tidegate_config_reloads_total{result=\"success\"}";
    let reloads = stand.tidegate.metric(reloads).await;
    println!(
        "50 to 1 to 50 endpoints, {reloads} changes: {} requests, {:?} failed",
        seen.len(),
        failures(&seen)
    );
    assert_eq!(failures(&seen), BTreeMap::new());
    assert!(reloads >= f64::from(rounds as u32) - 1.0, "{reloads}");
    assert!(Path::new(stand.directory.path()).exists());
}
