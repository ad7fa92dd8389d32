//! Several name servers, many records, and what can be learnt when not everything can.

use super::*;

/// A name server that fails does not speak for the others, whichever comes first.
#[tokio::test]
async fn a_name_server_that_fails_is_passed_by() {
    let (bad, good) = (NameServer::start().await, NameServer::start().await);
    three(&good);
    for reply in [
        Reply::Code(ResponseCode::ServFail),
        Reply::Code(ResponseCode::Refused),
        Reply::Silence,
    ] {
        bad.answer(NAME, RecordType::SRV, reply.clone());
        for resolvers in [vec![bad.addr, good.addr], vec![good.addr, bad.addr]] {
            let mut clusters = ClusterSet::default();
            clusters.add(Cluster {
                id: ClusterId::new("test", "c", 80),
                protocol: UpstreamProtocol::Http1,
                tls: None,
                discovery: Owner::Dns(Arc::new(DnsSource {
                    query: by_srv(),
                    resolvers,
                    any_address: false,
                })),
                policy: Arc::default(),
                proxy_header: None,
            });
            let table = RoutingTable::new(Vec::new(), clusters).unwrap();
            let mut discovery = Discovery::new(quick(), &prometheus::Registry::new()).unwrap();
            discovery.apply(&table);
            let sets = discovery.settled(Duration::from_secs(5)).await;
            assert_eq!(sets.values().map(Vec::len).sum::<usize>(), 3, "{reply:?}");
        }
    }
}

/// What can be learnt is used: a target that cannot be looked up, and was never known, costs itself.
#[tokio::test]
async fn a_target_that_was_never_known_costs_itself() {
    let mut asking = ask(by_srv(), |server| {
        three(server);
        server.answer(
            "b2.test",
            RecordType::A,
            Reply::Code(ResponseCode::ServFail),
        );
    })
    .await;
    assert_eq!(asking.changed().await, [THREE[0], THREE[2]]);
    let known = vec![address("b2.test", "10.0.0.2")];
    asking.server.records("b2.test", RecordType::A, known);
    assert_eq!(asking.changed().await, THREE);
}

/// Servers that fail for the family they have not are not rare.
#[tokio::test]
async fn one_family_is_enough() {
    for bad in [
        Reply::Code(ResponseCode::ServFail),
        Reply::Code(ResponseCode::Refused),
        Reply::Silence,
    ] {
        let query = DnsQuery::Address("api.test".into(), 80);
        let mut asking = ask(query, |server| {
            let known = vec![address("api.test", "10.0.0.1")];
            server.records("api.test", RecordType::A, known);
            server.answer("api.test", RecordType::AAAA, bad.clone());
        })
        .await;
        assert_eq!(asking.changed().await, ["10.0.0.1:80 p0 w1"], "{bad:?}");
    }
}

/// N4: a chain of twenty aliases, one a server's answer, is too long, and no endless work.
#[tokio::test]
async fn a_long_chain_of_aliases_is_a_failure() {
    let query = DnsQuery::Address("a0.test".into(), 80);
    let chain = |server: &NameServer, length: usize| {
        for n in 0..length {
            let (from, to) = (format!("a{n}.test"), format!("a{}.test", n + 1));
            for kind in [RecordType::A, RecordType::AAAA] {
                server.records(&from, kind, vec![alias(&from, &to)]);
            }
        }
        let end = format!("a{length}.test");
        server.records(&end, RecordType::A, vec![address(&end, "10.0.0.1")]);
        let nothing = Reply::Code(ResponseCode::NoError);
        server.answer(&end, RecordType::AAAA, nothing);
    };
    let mut asking = ask(query, |server| chain(server, 20)).await;
    asking.nothing_changes_over(40).await;
    assert_ne!(asking.failures(), 0);
    chain(&asking.server, 5);
    assert_eq!(asking.changed().await, ["10.0.0.1:80 p0 w1"]);
}

/// N4: of two thousand SRV records the same thousand are used, whatever their order, and the rest is counted.
#[tokio::test]
async fn of_very_many_services_a_thousand_are_used() {
    // So that all of them fit into one answer.
    const SHORT: &str = "_a._b";
    let records = |reversed: bool| {
        let mut records: Vec<Record> = (0..2000u16)
            .map(|n| srv(SHORT, n / 1000, 1, 1000 + n, "b"))
            .collect();
        if reversed {
            records.reverse();
        }
        let along = vec![address("b", "10.0.0.1")];
        Reply::Cut(Box::new(Reply::Records(records, along)))
    };
    // So much takes a while to write and to read.
    let mut asking = ask_within(
        Duration::from_secs(8),
        DnsQuery::Srv(SHORT.into()),
        |server| server.answer(SHORT, RecordType::SRV, records(false)),
    )
    .await;
    let found = asking.changed().await;
    assert_eq!(found.len(), 1000);
    assert!(found.iter().all(|one| one.ends_with(" p0 w1")));
    asking.server.answer(SHORT, RecordType::SRV, records(true));
    asking.nothing_changes_over(6).await;
    assert_ne!(asking.metric("tidegate_dns_records_left_out_total"), "0");
}

/// Who begins waits for the first answers, but not for ever.
#[tokio::test]
async fn first_answers_are_waited_for_with_a_limit() {
    let server = NameServer::start().await;
    three(&server);
    let silent = DnsQuery::Address("silent.test".into(), 80);
    for kind in [RecordType::A, RecordType::AAAA] {
        let late = Reply::Late(Duration::from_secs(60), Box::new(Reply::Silence));
        server.answer("silent.test", kind, late);
    }
    let registry = prometheus::Registry::new();
    let mut discovery = Discovery::new(quick(), &registry).unwrap();
    discovery.apply(&table(&[by_srv(), silent], &server, false));
    let started = std::time::Instant::now();
    let sets = discovery.settled(Duration::from_secs(30)).await;
    // A failure is an answer too.
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(sets.values().map(Vec::len).collect::<Vec<_>>(), [3]);
    let sets = discovery.settled(Duration::from_secs(30)).await;
    assert!(sets.is_empty(), "there is nothing to wait for any more");
    discovery.apply(&RoutingTable::default());
    let another = DnsQuery::Address("silent.test".into(), 81);
    discovery.apply(&table(&[another], &server, false));
    let sets = discovery.settled(Duration::from_millis(50)).await;
    assert!(sets.is_empty());
}

/// The age grows while nothing is heard.
#[tokio::test]
async fn an_answer_grows_old_while_nothing_is_heard() {
    let mut asking = ask(by_srv(), three).await;
    assert_eq!(asking.changed().await, THREE);
    assert_eq!(asking.metric("tidegate_dns_endpoints"), "3");
    asking.server.answer(NAME, RecordType::SRV, Reply::Silence);
    let age = |asking: &Asking| asking.metric("tidegate_dns_answer_age_seconds");
    let started = std::time::Instant::now();
    while age(&asking) == "0" {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    three(&asking.server);
    while age(&asking) != "0" {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
