//! `/profile` of the admin port: it shows where a busy data plane spends its time, and nothing of it is there before or after.

use http::Method;
use std::time::{Duration, Instant};
use test_support::client::{Answer, Client, get, request};
use test_support::load::{Load, Plan};
use test_support::{Backend, Tidegate};

/// Bit of SIGPROF in the masks of proc(5).
const SIGPROF: u64 = 1 << 26;

async fn serve(name: &str, backend: &Backend, more: &[&str]) -> Tidegate {
    let to = format!("--backend=http://{}", backend.addr);
    let args = ["serve", &to, "--workers=1", "--access-log=off"];
    Tidegate::start(name, &[&args[..], more].concat())
        .ready()
        .await
}

async fn profile(tidegate: &Tidegate, query: &str) -> Answer {
    let path = format!("/profile{query}");
    get(tidegate.admin, "admin", &path).await.unwrap()
}

/// Whether it handles the signal of a profiler.
fn handles_samples(tidegate: &Tidegate) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tidegate.pid())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    u64::from_str_radix(caught.unwrap().trim(), 16).unwrap() & SIGPROF != 0
}

async fn until_it_handles_samples(tidegate: &Tidegate, wanted: bool) {
    let start = Instant::now();
    while handles_samples(tidegate) != wanted {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn load_of(tidegate: &Tidegate) -> Load {
    Load::start(Plan {
        addrs: vec![tidegate.http],
        host: "a.test".into(),
        path: "/".into(),
        posts: true,
        clients: 8,
        rate: 4_000,
        limit: u64::MAX,
    })
}

/// What a process that was killed has left behind is in nobody's way either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_profile_is_as_good_as_the_first() {
    let backend = Backend::start("one").await;
    let tidegate = serve("profiles", &backend, &["--admin-profile"]).await;
    let room = format!("/dev/shm/tidegate-profile-{}", tidegate.pid());
    std::fs::create_dir(&room).unwrap();
    let load = load_of(&tidegate);
    load.reach(100).await;
    for _ in 0..3 {
        let taken = profile(&tidegate, "?seconds=1&format=folded").await;
        assert_eq!(taken.status, 200, "{}", taken.text());
        assert!(taken.text().contains("data_plane::"), "{}", taken.text());
        assert!(!std::path::Path::new(&room).exists());
    }
    assert_eq!(load.stop().await.failures(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_under_load_shows_the_data_plane_and_fails_no_request() {
    let backend = Backend::start("one").await;
    let tidegate = serve("profile", &backend, &["--admin-profile"]).await;
    assert!(!handles_samples(&tidegate));
    let load = load_of(&tidegate);
    load.reach(100).await;
    let during = async {
        until_it_handles_samples(&tidegate, true).await;
        profile(&tidegate, "?seconds=1").await
    };
    let start = Instant::now();
    let (taken, second) = tokio::join!(profile(&tidegate, "?seconds=2&format=folded"), during);
    let took = start.elapsed();
    let outcome = load.stop().await;
    assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(second.status, 409, "{}", second.text());
    assert_eq!(taken.status, 200, "{}", taken.text());

    let text = taken.text();
    let stacks: Vec<(&str, u64)> = text
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(stack, count)| (stack, count.parse().unwrap()))
        .collect();
    let samples = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        let met = stacks.iter().filter(|(stack, _)| wanted(stack));
        met.map(|(_, count)| count).sum()
    };
    let all = samples(&|_| true);
    let data_plane = samples(&|stack| stack.contains("data_plane::"));
    let of_workers = samples(&|stack| stack.starts_with("worker-0;"));
    println!(
        "{all} samples in {took:?}, {data_plane} in data_plane, {of_workers} of worker-0; then {} KiB resident",
        tidegate.resident() / 1024
    );
    assert!(data_plane >= 10 && 2 * data_plane > all, "{text}");
    assert!(2 * of_workers > all, "{text}");

    // The last one has left nothing that would cost, and the next one works.
    assert!(!handles_samples(&tidegate));
    let room = format!("/dev/shm/tidegate-profile-{}", tidegate.pid());
    assert!(!std::path::Path::new(&room).exists());
    let picture = profile(&tidegate, "?seconds=1").await;
    assert_eq!(picture.status, 200);
    assert_eq!(picture.headers["content-type"], "image/svg+xml");
    assert!(picture.text().starts_with("<svg "));
}

#[tokio::test]
async fn who_leaves_ends_the_profile_and_without_leave_there_is_none() {
    let backend = Backend::start("one").await;
    let tidegate = serve("profile-left", &backend, &["--admin-profile"]).await;
    let refused = profile(&tidegate, "?seconds=61").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("\"seconds\""), "{}", refused.text());
    let mut leaves = Client::connect(tidegate.admin).await.unwrap();
    let asked = request(
        Method::GET,
        "admin",
        "/profile?seconds=60",
        Default::default(),
    );
    tokio::select! {
        answer = leaves.send(asked) => panic!("answered at once: {answer:?}"),
        () = until_it_handles_samples(&tidegate, true) => {}
    }
    drop(leaves);
    until_it_handles_samples(&tidegate, false).await;

    let tidegate = serve("profile-refused", &backend, &[]).await;
    let refused = profile(&tidegate, "?seconds=1").await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("--admin-profile"),
        "{}",
        refused.text()
    );
}
