//! Who is ejected for what it does with real requests, and what never counts against anybody.

use super::raw::{Act, RawBackend, exchange};
use super::{Proxy, Rule, host, serve};
use bytes::Bytes;
use http::Method;
use routing_table::Policy;
use routing_table::policy::OutlierDetection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::{Client, get, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ERROR: &str = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nonly half";

fn outlier(config: OutlierDetection) -> Policy {
    Policy {
        outlier: Some(config),
        ..Policy::default()
    }
}

/// The default, but for ejections that outlast the test.
fn long() -> OutlierDetection {
    OutlierDetection {
        ejection: Duration::from_secs(600),
        max_ejection: Duration::from_secs(600),
        ..OutlierDetection::default()
    }
}

fn judged(endpoints: &[SocketAddr], config: OutlierDetection) -> Proxy {
    serve(&[host("a.test", endpoints).policy(outlier(config))])
}

/// Transitions of outlier detection, out and back.
fn transitions(proxy: &Proxy) -> (f64, f64) {
    let of = |to| {
        let name = format!("tidegate_endpoint_transitions_total{{check=\"passive\",to=\"{to}\"}}");
        proxy.series(&name)
    };
    (of("out"), of("back"))
}

async fn ejected(proxy: &Proxy, count: f64) {
    let start = Instant::now();
    while transitions(proxy).0 != count {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            transitions(proxy)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Statuses of so many requests, one after the other.
async fn statuses(proxy: &Proxy, count: usize) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for _ in 0..count {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        *statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    statuses
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gone.local_addr().unwrap()
}

#[tokio::test]
async fn five_errors_in_a_row_eject_until_the_time_is_up() {
    let bad = RawBackend::start(&[Act::Reply(ERROR)]).await;
    let good = Backend::start("good").await;
    let proxy = judged(
        &[bad.addr, good.addr],
        OutlierDetection {
            ejection: Duration::from_secs(2),
            ..OutlierDetection::default()
        },
    );
    let start = Instant::now();
    let seen = statuses(&proxy, 10).await;
    assert_eq!(seen, BTreeMap::from([(200, 5), (500, 5)]));
    assert_eq!(transitions(&proxy), (1.0, 0.0));
    // Not one more until the time is up.
    while transitions(&proxy).1 == 0.0 {
        let before = bad.requests();
        get(proxy.addr, "a.test", "/").await.unwrap();
        if transitions(&proxy).1 == 0.0 {
            assert_eq!((before, bad.requests()), (5, 5));
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(1900));
    // It is judged afresh: it takes five again.
    let before = bad.requests();
    ejected_again(&proxy, &bad, before).await;
}

async fn ejected_again(proxy: &Proxy, bad: &RawBackend, before: usize) {
    let start = Instant::now();
    while transitions(proxy).0 < 2.0 {
        get(proxy.addr, "a.test", "/").await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    let again = bad.requests() - before;
    assert!((4..=5).contains(&again), "{again}");
}

#[tokio::test]
async fn by_default_nobody_is_judged() {
    let bad = RawBackend::start(&[Act::Reply(ERROR)]).await;
    let good = Backend::start("good").await;
    let proxy = serve(&[host("a.test", &[bad.addr, good.addr])]);
    let seen = statuses(&proxy, 60).await;
    assert_eq!(seen, BTreeMap::from([(200, 30), (500, 30)]));
    assert_eq!(transitions(&proxy), (0.0, 0.0));
}

#[tokio::test]
async fn not_more_than_the_share_and_always_one() {
    for (count, most, out) in [(4, 50, 2.0), (1, 50, 1.0), (3, 10, 1.0), (2, 100, 2.0)] {
        let mut backends = Vec::new();
        for _ in 0..count {
            backends.push(RawBackend::start(&[Act::Reply(UNAVAILABLE)]).await);
        }
        let addrs: Vec<_> = backends.iter().map(|backend| backend.addr).collect();
        let proxy = judged(
            &addrs,
            OutlierDetection {
                consecutive_errors: None,
                consecutive_gateway_errors: Some(3),
                max_ejected: most,
                ..long()
            },
        );
        statuses(&proxy, 60).await;
        assert_eq!(transitions(&proxy), (out, 0.0), "{most} % of {count}");
        // Where all are out, health is ignored: somebody is asked all the same.
        let panic = f64::from(u8::from(out == f64::from(count)));
        assert_eq!(proxy.metric("tidegate_cluster_in_panic"), panic);
        let asked: usize = backends.iter().map(RawBackend::requests).sum();
        assert_eq!(asked, 60);
    }
}

#[tokio::test]
async fn clients_that_leave_say_nothing_of_endpoints() {
    let delay = Duration::from_millis(700);
    let any = || ([127, 0, 0, 1], 0).into();
    let backends = [
        Backend::start_at("a", any(), delay).await,
        Backend::start_at("b", any(), delay).await,
    ];
    let addrs = backends.each_ref().map(|backend| backend.addr);
    let proxy = judged(&addrs, long());
    for _ in 0..4 {
        let mut clients = Vec::new();
        for _ in 0..25 {
            let mut client = TcpStream::connect(proxy.addr).await.unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                .await
                .unwrap();
            clients.push(client);
        }
        proxy.metric_becomes("tidegate_requests_active", 25.0).await;
        for client in clients {
            client.set_zero_linger().unwrap();
        }
        proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    }
    assert_eq!(
        statuses(&proxy, 2).await,
        BTreeMap::from([(200, 2)]),
        "they answer"
    );
    assert_eq!(transitions(&proxy), (0.0, 0.0));
}

#[tokio::test]
async fn a_body_sent_to_a_dead_endpoint_puts_down_nobody_else() {
    let dead = nobody().await;
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let proxy = judged(&[a.addr, dead, b.addr], long());
    let mut good = 0;
    for n in 0..60 {
        let body = Bytes::from(vec![b'x'; 10_000]);
        let mut client = Client::connect(proxy.addr).await.unwrap();
        let answer = client
            .send(request(Method::POST, "a.test", "/", body.clone()))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "request {n}");
        good += 1;
        let last = [&a, &b].map(|backend| backend.last().map(|seen| seen.body == body));
        assert!(last.iter().all(|same| same.unwrap_or(true)), "request {n}");
        if transitions(&proxy).0 > 0.0 {
            break;
        }
        // It is passed over for a second after each failure.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(good > 5);
    assert_eq!(transitions(&proxy), (1.0, 0.0), "the dead one and no other");
    let mut names = BTreeMap::new();
    for _ in 0..20 {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        *names.entry(answer.text()).or_insert(0) += 1;
    }
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn a_body_that_is_broken_or_refused_is_not_the_endpoints_fault() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])
        .policy(outlier(OutlierDetection {
            consecutive_errors: Some(1),
            ..long()
        }))
        .body_limit(100)]);
    for _ in 0..10 {
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n";
        // Ends early, is no chunk, is too large when all of it is known.
        let mut early = TcpStream::connect(proxy.addr).await.unwrap();
        let text = format!("{head}Content-Length: 50\r\n\r\nhalf");
        early.write_all(text.as_bytes()).await.unwrap();
        drop(early);
        for body in [
            "zz\r\nno chunk\r\n",
            &format!("c8\r\n{}\r\n0\r\n\r\n", "x".repeat(200)),
        ] {
            let text = format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}");
            let answer = exchange(proxy.addr, text.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
    }
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    assert_eq!(transitions(&proxy), (0.0, 0.0));
}

#[tokio::test]
async fn a_connection_closed_at_rest_is_nobodys_fault() {
    let backend = RawBackend::start(&[Act::OkThenCloseAtRest]).await;
    let proxy = judged(
        &[backend.addr],
        OutlierDetection {
            consecutive_errors: Some(1),
            ..long()
        },
    );
    for _ in 0..30 {
        assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 200);
        // Sometimes before, sometimes while, sometimes after it closes.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(transitions(&proxy), (0.0, 0.0));
}

#[tokio::test]
async fn limits_of_ours_and_client_errors_are_not_the_endpoints_fault() {
    let refusing =
        RawBackend::start(&[Act::Reply("HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n")]).await;
    let silent = RawBackend::start(&[Act::Silence]).await;
    let strict = || {
        outlier(OutlierDetection {
            consecutive_errors: Some(1),
            ..long()
        })
    };
    let proxy = serve(&[
        host("a.test", &[refusing.addr]).policy(strict()),
        host("b.test", &[silent.addr])
            .policy(strict())
            .in_flight(1, 0, Duration::from_millis(10)),
    ]);
    assert_eq!(statuses(&proxy, 20).await, BTreeMap::from([(429, 20)]));
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    let mut waiting = TcpStream::connect(proxy.addr).await.unwrap();
    waiting
        .write_all(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
        .await
        .unwrap();
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    for _ in 0..10 {
        assert_eq!(get(proxy.addr, "b.test", "/").await.unwrap().status, 503);
    }
    assert_eq!(transitions(&proxy), (0.0, 0.0));
}

#[tokio::test]
async fn no_answer_in_any_way_counts() {
    let cut = RawBackend::start(&[Act::ReplyAndClose(CUT)]).await;
    let closes = RawBackend::start(&[Act::ReplyAndClose("")]).await;
    let garbage = RawBackend::start(&[Act::ReplyAndClose("SMTP ready\r\n\r\n")]).await;
    let silent = RawBackend::start(&[Act::Silence]).await;
    let dead = nobody().await;
    let short = |name: &str, addr| -> Rule {
        host(name, &[addr])
            .policy(outlier(OutlierDetection {
                consecutive_errors: Some(2),
                ..long()
            }))
            .first_byte(Duration::from_millis(50))
            .attempts(1)
    };
    for (name, addr) in [
        ("cut.test", cut.addr),
        ("closes.test", closes.addr),
        ("garbage.test", garbage.addr),
        ("silent.test", silent.addr),
        ("dead.test", dead),
    ] {
        let proxy = serve(&[short(name, addr)]);
        for n in 0..2 {
            assert_eq!(transitions(&proxy), (0.0, 0.0), "{name} {n}");
            let text = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            exchange(proxy.addr, text.as_bytes()).await;
        }
        ejected(&proxy, 1.0).await;
    }
}

#[tokio::test]
async fn one_that_is_too_slow_or_fails_too_often_over_an_interval_is_ejected() {
    let any = || ([127, 0, 0, 1], 0).into();
    let slow = Backend::start_at("slow", any(), Duration::from_millis(300)).await;
    let good = Backend::start("good").await;
    let every_third = [Act::Reply(OK), Act::Reply(OK), Act::Reply(ERROR)];
    let acts: Vec<_> = every_third.iter().cycle().take(3000).cloned().collect();
    let faulty = RawBackend::start(&acts).await;
    for (bad, config) in [
        (
            slow.addr,
            OutlierDetection {
                latency: Some(Duration::from_millis(200)),
                ..long()
            },
        ),
        (
            faulty.addr,
            OutlierDetection {
                success_rate: Some(90),
                ..long()
            },
        ),
    ] {
        let proxy = judged(
            &[bad, good.addr],
            OutlierDetection {
                min_requests: 5,
                interval: Duration::from_secs(3),
                ..config
            },
        );
        let start = Instant::now();
        while transitions(&proxy).0 < 1.0 {
            assert!(start.elapsed() < Duration::from_secs(20));
            get(proxy.addr, "a.test", "/").await.unwrap();
        }
        for _ in 0..10 {
            let answer = get(proxy.addr, "a.test", "/").await.unwrap();
            assert_eq!(answer.text(), "good");
        }
    }
}

#[tokio::test]
async fn one_that_stops_in_the_middle_is_ejected_long_before_a_timeout() {
    // A crowd that pauses, and a few clients of whom each soon waits for the one that is stopped.
    for (clients, pause) in [(10, 10), (4, 0)] {
        // Answers for a while, then nothing more: as a process that is stopped, whose sockets the kernel keeps.
        let mut acts = vec![Act::Reply(OK); 20];
        acts.push(Act::Silence);
        let stopped = RawBackend::start(&acts).await;
        let (a, b) = (Backend::start("good").await, Backend::start("good").await);
        let proxy = judged(&[stopped.addr, a.addr, b.addr], long());
        let addr = proxy.addr;
        let load: Vec<_> = (0..clients)
            .map(|_| {
                tokio::spawn(async move {
                    loop {
                        let _ = get(addr, "a.test", "/").await;
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                })
            })
            .collect();
        ejected(&proxy, 1.0).await;
        load.iter().for_each(|one| one.abort());
        let before = stopped.requests();
        for _ in 0..10 {
            assert_eq!(get(addr, "a.test", "/").await.unwrap().text(), "good");
        }
        assert_eq!(stopped.requests(), before);
    }
}

#[tokio::test]
async fn slow_uploads_do_not_make_an_endpoint_look_stopped() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let config = OutlierDetection {
        unanswered: Some(Duration::from_millis(300)),
        ..long()
    };
    let proxy = judged(&[a.addr, b.addr], config);
    // Uploads that have begun and do not go on, at both; one of them answers others.
    let mut uploads = Vec::new();
    for _ in 0..12 {
        let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nsome";
        let mut client = TcpStream::connect(proxy.addr).await.unwrap();
        client.write_all(head).await.unwrap();
        uploads.push(client);
    }
    proxy.metric_becomes("tidegate_requests_active", 12.0).await;
    get(proxy.addr, "a.test", "/").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(transitions(&proxy), (0.0, 0.0));
    let mut answer = [0; 12];
    for client in &mut uploads {
        client.write_all(&[b'x'; 96]).await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn endpoints_of_http2_are_judged_too() {
    let (dead, not_http2) = (
        nobody().await,
        RawBackend::start(&[Act::ReplyAndClose(OK)]).await,
    );
    for bad in [dead, not_http2.addr] {
        let config = OutlierDetection {
            consecutive_errors: Some(2),
            ..long()
        };
        let rule = host("a.test", &[bad]).policy(outlier(config)).http2();
        let proxy = serve(&[rule.attempts(1)]);
        for n in 0..2 {
            assert_eq!(transitions(&proxy), (0.0, 0.0), "{n}");
            assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 502);
        }
        assert_eq!(transitions(&proxy), (1.0, 0.0));
    }
}

#[tokio::test]
async fn a_policy_without_it_lets_everybody_go() {
    let bad = RawBackend::start(&[Act::Reply(ERROR)]).await;
    let good = Backend::start("good").await;
    let addrs = [bad.addr, good.addr];
    let mut proxy = judged(&addrs, long());
    statuses(&proxy, 10).await;
    assert_eq!(transitions(&proxy), (1.0, 0.0));
    // Another table with the same policy does not.
    let same = super::table(&[host("a.test", &addrs).policy(outlier(long()))]);
    proxy.publisher.apply(same).unwrap();
    assert_eq!(statuses(&proxy, 10).await, BTreeMap::from([(200, 10)]));
    let without = super::table(&[host("a.test", &addrs)]);
    proxy.publisher.apply(without).unwrap();
    assert_eq!(transitions(&proxy), (1.0, 1.0));
    let seen = statuses(&proxy, 10).await;
    assert_eq!(seen, BTreeMap::from([(200, 5), (500, 5)]));
}
