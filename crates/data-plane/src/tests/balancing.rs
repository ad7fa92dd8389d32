//! What of a request decides about its endpoint, and what of an answer is remembered.

use super::raw::{Act, RawBackend};
use super::{Proxy, host, serve};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, header};
use routing_table::policy::{Affinity, AffinityMode, Balancing, Cost, HashOn};
use routing_table::{Endpoint, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Answer, Client, get, request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn backends(count: usize) -> (Vec<Backend>, Vec<SocketAddr>) {
    let mut backends = Vec::new();
    for n in 1..=count {
        backends.push(Backend::start(&format!("b{n}")).await);
    }
    let addrs = backends.iter().map(|backend| backend.addr).collect();
    (backends, addrs)
}

fn by(balancing: Balancing) -> Policy {
    Policy {
        balancing,
        ..Policy::default()
    }
}

async fn ask(proxy: &Proxy, path: &str, field: Option<(HeaderName, &str)>) -> Answer {
    let mut asked = request(Method::GET, "a.test", path, Bytes::new());
    if let Some((name, value)) = field {
        let value = HeaderValue::from_str(value).unwrap();
        asked.headers_mut().insert(name, value);
    }
    let mut client = Client::connect(proxy.addr).await.unwrap();
    client.send(asked).await.unwrap()
}

#[tokio::test]
async fn what_is_hashed_decides_and_nothing_else() {
    let (_backends, addrs) = backends(4).await;
    let field = HeaderName::from_static("x-user");
    for on in [
        HashOn::Header("x-user".into()),
        HashOn::Cookie("user".into()),
        HashOn::Query("user".into()),
        HashOn::Path,
    ] {
        let rule = host("a.test", &addrs).policy(by(Balancing::RingHash(on.clone())));
        let proxy = serve(&[rule]);
        let mut places = BTreeSet::new();
        for user in 0..12 {
            let (path, field) = match &on {
                HashOn::Header(_) => ("/".to_owned(), Some((field.clone(), format!("u{user}")))),
                HashOn::Cookie(_) => {
                    let cookies = format!("a=b; user=u{user}; c=d");
                    ("/".to_owned(), Some((header::COOKIE, cookies)))
                }
                HashOn::Query(_) => (format!("/?a=b&user=u{user}"), None),
                _ => (format!("/u{user}"), None),
            };
            let mut here = BTreeSet::new();
            for _ in 0..3 {
                let field = field
                    .as_ref()
                    .map(|(name, value)| (name.clone(), value.as_str()));
                here.insert(ask(&proxy, &path, field).await.text());
            }
            assert_eq!(here.len(), 1, "{on:?} u{user}: {here:?}");
            places.extend(here);
        }
        assert!(places.len() > 1, "{on:?}");
        if on != HashOn::Path {
            // Without it there is nothing to hash: each in turn.
            let mut turns = BTreeSet::new();
            for _ in 0..8 {
                turns.insert(ask(&proxy, "/", None).await.text());
            }
            assert_eq!(turns.len(), 4, "{on:?}");
        }
    }
}

#[tokio::test]
async fn a_client_has_one_address_and_so_one_endpoint() {
    let (_backends, addrs) = backends(3).await;
    let proxy = serve(&[host("a.test", &addrs).policy(by(Balancing::SourceIp))]);
    let first = ask(&proxy, "/", None).await.text();
    for _ in 0..50 {
        assert_eq!(ask(&proxy, "/", None).await.text(), first);
    }
}

fn affinity(mode: AffinityMode) -> Policy {
    Policy {
        affinity: Some(Affinity {
            mode,
            max_age: Some(Duration::from_secs(60)),
            same_site: Some("Lax"),
            ..Affinity::new("stay")
        }),
        ..Policy::default()
    }
}

fn cookie(answer: &Answer) -> Option<String> {
    let text = answer.headers.get(header::SET_COOKIE)?.to_str().unwrap();
    Some(text.to_owned())
}

/// Enough for shares not to be a matter of luck.
const CLIENTS: usize = 96;

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_endpoint() {
    let (mut backends, addrs) = backends(3).await;
    for mode in [AffinityMode::Persistent, AffinityMode::Balanced] {
        let mut proxy = serve(&[host("a.test", &addrs).policy(affinity(mode))]);
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let answer = ask(&proxy, "/", None).await;
            let set = cookie(&answer).expect("a new client gets a cookie");
            assert!(
                set.starts_with("stay=")
                    && set.ends_with("; Path=/; HttpOnly; Max-Age=60; SameSite=Lax"),
                "{set}"
            );
            clients.push((set.split(';').next().unwrap().to_owned(), answer.text()));
        }
        let places: BTreeSet<_> = clients.iter().map(|(_, name)| name.clone()).collect();
        assert!(places.len() > 1, "{mode:?} {places:?}");
        // A table more, and one endpoint more: who is here stays here (in balanced mode, most).
        let more = Backend::start("b4").await;
        let scaled = [addrs.clone(), vec![more.addr]].concat();
        proxy
            .publisher
            .apply(super::table(&[
                host("a.test", &scaled).policy(affinity(mode))
            ]))
            .unwrap();
        let mut stayed = 0;
        for (known, name) in &clients {
            let answer = ask(&proxy, "/", Some((header::COOKIE, known))).await;
            assert_eq!(cookie(&answer), None, "it has one");
            stayed += usize::from(answer.text() == *name);
        }
        // A fourth endpoint takes a quarter of them, give or take what the dice of cookies and addresses make of it.
        let least = if mode == AffinityMode::Persistent {
            CLIENTS
        } else {
            CLIENTS / 2
        };
        assert!(stayed >= least, "{mode:?}: {stayed} of {CLIENTS}");
    }
    // Gone: another endpoint, and in persistent mode another cookie.
    let proxy = serve(&[host("a.test", &addrs).policy(affinity(AffinityMode::Persistent))]);
    let first = ask(&proxy, "/", None).await;
    let known = cookie(&first)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    backends.retain(|backend| {
        let gone = first.text()
            == format!(
                "b{}",
                addrs.iter().position(|addr| *addr == backend.addr).unwrap() + 1
            );
        !gone
    });
    let next = ask(&proxy, "/", Some((header::COOKIE, &known))).await;
    assert_eq!(next.status, 200);
    assert_ne!(next.text(), first.text());
    assert!(cookie(&next).is_some_and(|set| !set.starts_with(&known)));
}

#[tokio::test]
async fn an_endpoint_that_is_full_spills_to_the_next_priority() {
    let slow = Backend::start_at(
        "slow",
        ([127, 0, 0, 1], 0).into(),
        Duration::from_millis(300),
    )
    .await;
    let spare = Backend::start("spare").await;
    let endpoints = vec![
        Endpoint {
            max_requests: Some(2),
            ..Endpoint::ready(slow.addr)
        },
        Endpoint {
            priority: 1,
            ..Endpoint::ready(spare.addr)
        },
    ];
    let proxy = serve(&[host("a.test", &[]).endpoints(endpoints)]);
    let asked: Vec<_> = (0..4)
        .map(|_| tokio::spawn(get(proxy.addr, "a.test", "/")))
        .collect();
    let mut shares = BTreeMap::new();
    for answer in asked {
        *shares
            .entry(answer.await.unwrap().unwrap().text())
            .or_insert(0) += 1;
    }
    assert_eq!(
        shares,
        BTreeMap::from([("slow".to_owned(), 2), ("spare".to_owned(), 2)])
    );
}

#[tokio::test]
async fn a_long_connection_counts_and_new_ones_go_elsewhere() {
    // Longer than the test takes.
    let delay = Duration::from_secs(600);
    let quick = Backend::start("quick").await;
    for balancing in [Balancing::LeastRequest, Balancing::LeastConnections] {
        let slow = Backend::start_at("slow", ([127, 0, 0, 1], 0).into(), delay).await;
        let proxy = serve(&[host("a.test", &[slow.addr, quick.addr]).policy(by(balancing))]);
        // Until one of them is at the slow one.
        let mut asked = Vec::new();
        while slow.connections() == 0 {
            let (done, answered) = tokio::sync::oneshot::channel();
            asked.push(tokio::spawn(async move {
                let _ = done.send(get(proxy.addr, "a.test", "/").await);
            }));
            tokio::select! {
                answer = answered => assert_eq!(answer.unwrap().unwrap().text(), "quick"),
                () = slow_has_one(&slow) => {}
            }
        }
        for _ in 0..6 {
            assert_eq!(
                get(proxy.addr, "a.test", "/").await.unwrap().text(),
                "quick"
            );
        }
        for task in asked {
            task.abort();
        }
    }
}

async fn slow_has_one(slow: &Backend) {
    while slow.connections() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn small_requests_stay_away_from_an_upload() {
    let (backends, addrs) = backends(2).await;
    let cost = Cost::Length {
        base: 1,
        per_mebibyte: 1,
    };
    let proxy = serve(&[host("a.test", &addrs).policy(by(Balancing::Cost(cost)))]);
    // An upload that has begun and goes on.
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 104857600\r\n\r\n";
    let mut upload = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut upload, head.as_bytes())
        .await
        .unwrap();
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    let mut shares = BTreeMap::new();
    for _ in 0..100 {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        *shares.entry(answer.text()).or_insert(0) += 1;
    }
    assert_eq!(
        shares.values().copied().collect::<Vec<_>>(),
        [100],
        "{shares:?}"
    );
    drop(backends);
}

/// An upload that declares nothing is dearer the longer it goes on, and one that is nearly over costs next to nothing.
#[tokio::test]
async fn what_is_streamed_corrects_what_a_request_costs() {
    const MEBIBYTE: usize = 1 << 20;
    let (_backends, addrs) = backends(2).await;
    let cost = Cost::Length {
        base: 1,
        per_mebibyte: 1,
    };
    let proxy = serve(&[host("a.test", &addrs).policy(by(Balancing::Cost(cost)))]);
    let begin = async |length: String, active| {
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{length}\r\n\r\n");
        let mut upload = TcpStream::connect(proxy.addr).await.unwrap();
        upload.write_all(head.as_bytes()).await.unwrap();
        proxy
            .metric_becomes("tidegate_requests_active", active)
            .await;
        upload
    };
    let who = async || get(proxy.addr, "a.test", "/").await.unwrap().text();
    let becomes = async |wanted: &str| {
        let start = std::time::Instant::now();
        while who().await != wanted {
            assert!(start.elapsed() < Duration::from_secs(20), "not {wanted}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Not by turns.
        for _ in 0..4 {
            assert_eq!(who().await, wanted);
        }
    };
    // One that costs 1, as far as it says, and one that costs 3.
    let mut unknown = begin("Transfer-Encoding: chunked".into(), 1.0).await;
    let known = format!("Content-Length: {}", 2 * MEBIBYTE);
    let mut known = begin(known, 2.0).await;
    let cheap = who().await;
    let dear = if cheap == "b1" { "b2" } else { "b1" };
    becomes(&cheap).await;
    // Now they cost 6 and 3.
    let chunk = [b"100000\r\n", &vec![b'x'; MEBIBYTE][..], b"\r\n"].concat();
    for _ in 0..5 {
        unknown.write_all(&chunk).await.unwrap();
    }
    becomes(dear).await;
    // The one is over and costs nothing; and now both are.
    let rest = vec![b'x'; 2 * MEBIBYTE];
    unknown.write_all(b"0\r\n\r\n").await.unwrap();
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    becomes(&cheap).await;
    known.write_all(&rest).await.unwrap();
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    let turns: BTreeSet<_> = [who().await, who().await].into();
    assert_eq!(turns.len(), 2, "{turns:?}");
}

#[tokio::test]
async fn who_answers_503_with_retry_after_gets_less_and_is_not_down() {
    let busy = RawBackend::start(&[Act::Reply(
        "HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
    )])
    .await;
    let calm = Backend::start("calm").await;
    let proxy = serve(&[host("a.test", &[busy.addr, calm.addr])]);
    let mut statuses = BTreeMap::new();
    for _ in 0..111 {
        let status = get(proxy.addr, "a.test", "/").await.unwrap().status;
        *statuses.entry(status.as_u16()).or_insert(0) += 1;
    }
    // A tenth of the share of the other.
    let refused = statuses[&503];
    assert!((5..=15).contains(&refused), "{statuses:?}");
}

/// Behind a proxy that is trusted the client is whom it names, and those of one proxy are many.
#[tokio::test]
async fn the_client_that_a_trusted_proxy_names_decides() {
    let (_backends, addrs) = backends(3).await;
    let settings = crate::Settings {
        trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        ..crate::Settings::default()
    };
    let rule = host("a.test", &addrs).policy(by(Balancing::SourceIp));
    let trusting = super::serve_with(std::slice::from_ref(&rule), settings);
    let strict = serve(&[rule]);
    let field = HeaderName::from_static("x-forwarded-for");
    for (proxy, many) in [(&trusting, true), (&strict, false)] {
        let mut seen = BTreeSet::new();
        for n in 0..20 {
            let client = format!("192.0.2.{n}");
            let first = ask(proxy, "/", Some((field.clone(), &client))).await.text();
            let again = ask(proxy, "/", Some((field.clone(), &client))).await.text();
            assert_eq!(first, again, "{client}");
            seen.insert(first);
        }
        assert_eq!(seen.len() > 1, many, "{seen:?}");
    }
}
