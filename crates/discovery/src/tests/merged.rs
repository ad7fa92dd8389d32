//! A cluster whose endpoints come from several sources.

use super::*;
use routing_table::Merged;

fn fixed() -> Endpoint {
    Endpoint {
        weight: 7,
        ..Endpoint::ready(([10, 9, 9, 9], 80).into())
    }
}

/// A cluster of an address that is written down and of these names.
fn table_of(queries: &[DnsQuery], server: &NameServer) -> RoutingTable {
    let source = |query: &DnsQuery| {
        Arc::new(DnsSource {
            query: query.clone(),
            resolvers: vec![server.addr],
            any_address: false,
        })
    };
    let mut clusters = ClusterSet::default();
    clusters.add(Cluster {
        id: ClusterId::new("test", "c", 80),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        discovery: Owner::Merged(Arc::new(Merged {
            fixed: vec![fixed()],
            dns: queries.iter().map(source).collect(),
        })),
        policy: Arc::default(),
        proxy_header: None,
    });
    RoutingTable::new(Vec::new(), clusters).unwrap()
}

fn shown(sets: &EndpointSets) -> Vec<String> {
    let set = sets.values().next().expect("it is known");
    set.iter()
        .map(|one| format!("{} w{}", one.addr, one.weight))
        .collect()
}

#[tokio::test]
async fn sources_are_put_together_and_one_that_fails_keeps_the_others() {
    let server = NameServer::start().await;
    three(&server);
    server.answer(
        "other.test",
        RecordType::A,
        Reply::Code(ResponseCode::ServFail),
    );
    let queries = [by_srv(), DnsQuery::Address("other.test.".into(), 80)];
    let mut discovery = Discovery::new(quick(), &prometheus::Registry::new()).unwrap();
    // What is written down is there before anybody was asked.
    let table = table_of(&queries, &server);
    assert_eq!(shown(&discovery.apply(&table)), ["10.9.9.9:80 w7"]);
    let settled = discovery.settled(Duration::from_secs(5)).await;
    let of_two = shown(&settled);
    assert_eq!(of_two.len(), 4, "{of_two:?}");
    assert_eq!(of_two[0], "10.9.9.9:80 w7");
    // The one that failed comes back, with an address that is known already and a new one.
    let known = vec![
        address("other.test", "10.9.9.9"),
        address("other.test", "10.8.8.8"),
    ];
    server.records("other.test", RecordType::A, known);
    let next = tokio::time::timeout(Duration::from_secs(10), discovery.changed());
    let all = shown(&next.await.expect("there is a change"));
    assert_eq!(all[..4], of_two);
    assert_eq!(all[4..], ["10.8.8.8:80 w1"]);
    // A new table begins with all of it.
    assert_eq!(shown(&discovery.apply(&table)), all);
}
