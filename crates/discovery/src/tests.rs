//! Against a name server of ours that answers well and badly, over real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Record, RecordType};
use routing_table::{Cluster, ClusterSet, DnsQuery, UpstreamProtocol};
use test_support::dns::{NameServer, Reply, address, alias, srv};

mod merged;
mod several;

const NAME: &str = "_http._tcp.api.test";

/// Everything a second faster.
fn quick() -> Timing {
    Timing {
        least_ttl: Duration::from_millis(50),
        timeout: Duration::from_millis(400),
        confirm: Duration::from_millis(300),
        keep: None,
        longest_wait: Duration::from_millis(100),
    }
}

struct Asking {
    server: NameServer,
    discovery: Discovery,
    registry: prometheus::Registry,
}

fn table(queries: &[DnsQuery], server: &NameServer, any_address: bool) -> RoutingTable {
    let mut clusters = ClusterSet::default();
    for (n, query) in queries.iter().enumerate() {
        clusters.add(Cluster {
            id: ClusterId::new("test", &format!("c{n}"), 80),
            protocol: UpstreamProtocol::Http1,
            tls: None,
            discovery: Owner::Dns(Arc::new(DnsSource {
                query: query.clone(),
                resolvers: vec![server.addr],
                any_address,
            })),
            policy: Arc::default(),
            proxy_header: None,
        });
    }
    RoutingTable::new(Vec::new(), clusters).unwrap()
}

fn by_srv() -> DnsQuery {
    DnsQuery::Srv(NAME.into())
}

/// Asks a server that was told what to answer.
async fn ask(query: DnsQuery, told: impl FnOnce(&NameServer)) -> Asking {
    ask_within(quick().timeout, query, told).await
}

async fn ask_within(timeout: Duration, query: DnsQuery, told: impl FnOnce(&NameServer)) -> Asking {
    let timing = Timing { timeout, ..quick() };
    let server = NameServer::start().await;
    told(&server);
    let registry = prometheus::Registry::new();
    let mut discovery = Discovery::new(timing, &registry).unwrap();
    assert!(discovery.apply(&table(&[query], &server, false)).is_empty());
    Asking {
        server,
        discovery,
        registry,
    }
}

impl Asking {
    /// The next change.
    async fn changed(&mut self) -> Vec<String> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.discovery.changed());
        let sets = next.await.expect("there is a change");
        let set = sets.values().next().unwrap();
        set.iter()
            .map(|one| format!("{} p{} w{}", one.addr, one.priority, one.weight))
            .collect()
    }

    /// Waits for so many more questions, in which nothing changes.
    async fn nothing_changes_over(&mut self, questions: u64) {
        let until = self.server.queries() + questions;
        let asked = async {
            while self.server.queries() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = asked => {}
            sets = self.discovery.changed() => panic!("changed to {sets:?}"),
        }
    }

    fn failures(&self) -> u64 {
        let count = self.metric("tidegate_dns_lookups_total{result=\"failure\"}");
        count.parse().unwrap()
    }

    fn metric(&self, name: &str) -> String {
        let encoder = prometheus::TextEncoder::new();
        let text = encoder.encode_to_string(&self.registry.gather()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned()
    }
}

/// Three backends by SRV, their addresses beside it.
fn three(server: &NameServer) {
    let records = vec![
        srv(NAME, 0, 30, 8001, "b1.test"),
        srv(NAME, 0, 20, 8002, "b2.test"),
        srv(NAME, 10, 40, 8003, "b3.test"),
    ];
    server.records(NAME, RecordType::SRV, records);
    for (name, v4) in [
        ("b1.test", "10.0.0.1"),
        ("b2.test", "10.0.0.2"),
        ("b3.test", "10.0.0.3"),
    ] {
        server.records(name, RecordType::A, vec![address(name, v4)]);
        server.answer(name, RecordType::AAAA, Reply::Code(ResponseCode::NoError));
    }
}

const THREE: [&str; 3] = [
    "10.0.0.1:8001 p0 w30",
    "10.0.0.2:8002 p0 w20",
    "10.0.0.3:8003 p10 w40",
];

#[tokio::test]
async fn srv_records_give_ports_priorities_and_weights() {
    let mut asking = ask(by_srv(), three).await;
    assert_eq!(asking.changed().await, THREE);
}

#[tokio::test]
async fn addresses_that_came_along_are_not_asked_for() {
    let mut asking = ask(by_srv(), |server| {
        let records = vec![
            srv(NAME, 0, 1, 80, "B1.test"),
            srv(NAME, 0, 1, 80, "b2.test"),
        ];
        let along = vec![
            address("b1.test", "10.0.0.1"),
            address("b1.test", "2001:db8::1"),
            address("b2.test", "10.0.0.2"),
        ];
        server.answer(NAME, RecordType::SRV, Reply::Records(records, along));
    })
    .await;
    let expected = [
        "10.0.0.1:80 p0 w1",
        "10.0.0.2:80 p0 w1",
        "[2001:db8::1]:80 p0 w1",
    ];
    assert_eq!(asking.changed().await, expected);
    asking.nothing_changes_over(3).await;
    // A question for their addresses would have been answered that there is no such name.
    assert_eq!(asking.server.other_queries(RecordType::SRV), 0);
}

#[tokio::test]
async fn a_target_that_is_the_root_is_no_endpoint() {
    let mut asking = ask(by_srv(), |server| {
        server.records(NAME, RecordType::SRV, vec![srv(NAME, 0, 0, 0, ".")]);
    })
    .await;
    assert!(asking.changed().await.is_empty());
}

#[tokio::test]
async fn addresses_of_both_families() {
    let query = DnsQuery::Address("api.test".into(), 9000);
    let mut asking = ask(query, |server| {
        server.records(
            "api.test",
            RecordType::A,
            vec![address("api.test", "10.0.0.1")],
        );
        server.records(
            "api.test",
            RecordType::AAAA,
            vec![address("api.test", "2001:db8::1")],
        );
    })
    .await;
    assert_eq!(
        asking.changed().await,
        ["10.0.0.1:9000 p0 w1", "[2001:db8::1]:9000 p0 w1"]
    );
}

/// N4: by TCP when the answer was cut, and no more than a thousand.
#[tokio::test]
async fn large_answers_come_by_tcp() {
    for (count, used) in [(200u32, 200), (1500, 1000)] {
        let query = DnsQuery::Address("many.test".into(), 80);
        let mut asking = ask(query, |server| {
            let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
            let records = (0..count).map(|n| address("many.test", &ip(n))).collect();
            let whole = Reply::Records(records, Vec::new());
            server.answer("many.test", RecordType::A, Reply::Cut(Box::new(whole)));
            server.answer(
                "many.test",
                RecordType::AAAA,
                Reply::Code(ResponseCode::NoError),
            );
        })
        .await;
        assert_eq!(asking.changed().await.len(), used);
        assert!(asking.server.tcp_queries() >= 1);
        let cut = asking.metric("tidegate_dns_records_left_out_total");
        assert_eq!(cut == "0", count == 200, "{cut}");
    }
}

/// N4: aliases are followed; a loop of them is a failure and costs no more than any other.
#[tokio::test]
async fn aliases_are_followed_and_loops_end() {
    let query = DnsQuery::Address("a.test".into(), 80);
    let mut asking = ask(query.clone(), |server| {
        let records = vec![
            alias("a.test", "b.test"),
            alias("b.test", "c.test"),
            address("c.test", "10.0.0.1"),
        ];
        server.records("a.test", RecordType::A, records);
        server.answer(
            "a.test",
            RecordType::AAAA,
            Reply::Code(ResponseCode::NoError),
        );
    })
    .await;
    assert_eq!(asking.changed().await, ["10.0.0.1:80 p0 w1"]);
    let looping = |server: &NameServer| {
        for kind in [RecordType::A, RecordType::AAAA] {
            server.records("a.test", kind, vec![alias("a.test", "b.test")]);
            server.records("b.test", kind, vec![alias("b.test", "a.test")]);
        }
    };
    looping(&asking.server);
    // Long enough for what is empty to be believed.
    let since = std::time::Instant::now();
    while since.elapsed() < quick().confirm * 3 {
        asking.nothing_changes_over(20).await;
    }
    assert!(asking.server.most_at_once() <= 2);
}

/// N3: what changes is seen when the TTL is over, and what does not change is no update.
#[tokio::test]
async fn a_change_is_seen_and_sameness_is_not() {
    let mut asking = ask(by_srv(), three).await;
    assert_eq!(asking.changed().await, THREE);
    asking.nothing_changes_over(8).await;
    let fewer: Vec<Record> = vec![srv(NAME, 0, 30, 8001, "b1.test")];
    asking.server.records(NAME, RecordType::SRV, fewer);
    assert_eq!(asking.changed().await, THREE[..1]);
}

/// N1 and N7: whatever is no answer keeps the last one.
#[tokio::test]
async fn what_is_no_answer_keeps_the_last_one() {
    let right = Reply::Records(
        vec![srv(NAME, 0, 1, 80, "evil.test")],
        vec![address("evil.test", "10.6.6.6")],
    );
    let mut compression_loop = vec![0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    compression_loop.extend([
        0xc0, 0x0c, 0, 33, 0, 1, 0xc0, 0x0c, 0, 33, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 0x0c,
    ]);
    for bad in [
        Reply::Code(ResponseCode::ServFail),
        Reply::Code(ResponseCode::Refused),
        Reply::Silence,
        Reply::CutWithoutTcp,
        Reply::WrongId(Box::new(right.clone())),
        Reply::WrongQuestion(Box::new(right)),
        Reply::Bytes(compression_loop),
        Reply::Bytes(Vec::new()),
        Reply::Late(
            Duration::from_secs(2),
            Box::new(Reply::Code(ResponseCode::NXDomain)),
        ),
    ] {
        let mut asking = ask(by_srv(), three).await;
        assert_eq!(asking.changed().await, THREE);
        asking.server.answer(NAME, RecordType::SRV, bad.clone());
        asking.nothing_changes_over(3).await;
        // And when it is well again, so are we.
        asking.server.records(
            NAME,
            RecordType::SRV,
            vec![srv(NAME, 0, 20, 8002, "b2.test")],
        );
        assert_eq!(asking.changed().await, THREE[1..2], "{bad:?}");
        assert!(
            asking.server.most_at_once() <= 8,
            "{bad:?}: {}",
            asking.server.most_at_once()
        );
    }
}

/// A target of which nothing can be learnt is not taken for one that is gone.
#[tokio::test]
async fn a_target_without_answer_keeps_the_last_set() {
    let mut asking = ask(by_srv(), three).await;
    assert_eq!(asking.changed().await, THREE);
    asking.server.answer(
        "b2.test",
        RecordType::A,
        Reply::Code(ResponseCode::ServFail),
    );
    asking.nothing_changes_over(12).await;
    for kind in [RecordType::A, RecordType::AAAA] {
        asking
            .server
            .answer("b2.test", kind, Reply::Code(ResponseCode::NXDomain));
    }
    assert_eq!(asking.changed().await, [THREE[0], THREE[2]]);
}

/// N1: no such name, and no such record, empty the set once they have been said for long enough.
#[tokio::test]
async fn an_empty_answer_is_believed_when_it_lasts() {
    for empty in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let mut asking = ask(by_srv(), three).await;
        assert_eq!(asking.changed().await, THREE);
        let since = std::time::Instant::now();
        asking
            .server
            .answer(NAME, RecordType::SRV, Reply::Code(empty));
        assert!(asking.changed().await.is_empty());
        assert!(since.elapsed() >= quick().confirm, "{:?}", since.elapsed());
        three(&asking.server);
        assert_eq!(asking.changed().await, THREE);
    }
}

/// N2: a name server that never answers is asked again and again, one question of a kind at a time.
#[tokio::test]
async fn never_an_answer() {
    let mut asking = ask(by_srv(), |server| {
        server.answer(NAME, RecordType::SRV, Reply::Silence)
    })
    .await;
    asking.nothing_changes_over(3).await;
    three(&asking.server);
    assert_eq!(asking.changed().await, THREE);
}

/// N6.
#[tokio::test]
async fn what_a_stranger_must_not_name_is_left_out() {
    let query = DnsQuery::Address("evil.test".into(), 80);
    let mut asking = ask(query.clone(), |server| {
        let ips = ["127.0.0.1", "169.254.169.254", "10.0.0.1"];
        let records = ips.iter().map(|ip| address("evil.test", ip)).collect();
        server.records("evil.test", RecordType::A, records);
        server.answer(
            "evil.test",
            RecordType::AAAA,
            Reply::Code(ResponseCode::NoError),
        );
    })
    .await;
    assert_eq!(asking.changed().await, ["10.0.0.1:80 p0 w1"]);
    assert_eq!(asking.metric("tidegate_dns_records_left_out_total"), "2");
    // Where somebody opts in, they count.
    let table = table(&[query], &asking.server, true);
    asking.discovery.apply(&table);
    assert_eq!(asking.changed().await.len(), 3);
}

/// N7: two thousand answers of noise.
#[tokio::test]
async fn noise_is_survived() {
    let timing = Timing {
        least_ttl: Duration::from_millis(1),
        timeout: Duration::from_millis(20),
        longest_wait: Duration::from_millis(1),
        ..quick()
    };
    let server = NameServer::start().await;
    three(&server);
    let mut discovery = Discovery::new(timing, &prometheus::Registry::new()).unwrap();
    let queries: Vec<_> = (0..20)
        .map(|n| DnsQuery::Address(format!("n{n}.test").into(), 80))
        .collect();
    discovery.apply(&table(&queries, &server, false));
    let mut state = 88172645463325252u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while server.queries() < 2000 {
        for n in 0..20 {
            let length = noise() % 64;
            let bytes = (0..length).map(|_| noise() as u8).collect();
            server.answer(&format!("n{n}.test"), RecordType::A, Reply::Bytes(bytes));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.records(
        "n1.test",
        RecordType::A,
        vec![address("n1.test", "10.0.0.1")],
    );
    server.answer(
        "n1.test",
        RecordType::AAAA,
        Reply::Code(ResponseCode::NoError),
    );
    let found = async { while !discovery.changed().await.values().any(|set| set.len() == 1) {} };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .unwrap();
}

#[tokio::test]
async fn who_joins_later_gets_what_is_known_and_who_leaves_is_not_asked_for() {
    let mut asking = ask(by_srv(), three).await;
    assert_eq!(asking.changed().await, THREE);
    let both = table(&[by_srv(), by_srv()], &asking.server, false);
    let known = asking.discovery.apply(&both);
    assert_eq!(known.len(), 2);
    assert!(known.values().all(|set| set.len() == 3));
    assert!(asking.discovery.apply(&RoutingTable::default()).is_empty());
    let before = asking.server.queries();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        asking.server.queries() <= before + 6,
        "what was under way may end"
    );
}
