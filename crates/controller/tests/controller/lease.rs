//! Who leads, and who leads next.

use crate::harness::{PATIENCE, Plan, Replica, put_shop, skip, until};
use serde_json::{Value, json};
use std::time::Duration;
use test_support::ApiServer;
use test_support::api_server::{Fault, LEASES, Verb};

fn plan() -> Plan {
    Plan {
        elect: true,
        ..Plan::default()
    }
}

fn lease(server: &ApiServer) -> Value {
    server
        .get(LEASES, "system", "tidegate")
        .map(|lease| lease["spec"].clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_leader_that_ends_hands_over_at_once() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut first = Replica::start(&server, "first", plan()).await;
    first.until_leader().await;
    assert_eq!(
        (
            &lease(&server)["holderIdentity"],
            &lease(&server)["leaseDurationSeconds"]
        ),
        (&json!("first"), &json!(15))
    );
    let mut second = Replica::start(&server, "second", plan()).await;
    until(|| {
        server
            .seen()
            .iter()
            .any(|seen| seen.user == "second" && seen.resource == LEASES)
    })
    .await;
    assert!(!*second.leader.borrow());
    first.stop().await;
    assert_eq!(lease(&server)["holderIdentity"], json!(""));
    second.until_leader().await;
    assert_eq!(
        (
            &lease(&server)["holderIdentity"],
            &lease(&server)["leaseTransitions"]
        ),
        (&json!("second"), &json!(1))
    );
    second.stop().await;
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_when_its_lease_has_run_out() {
    let server = ApiServer::start().await;
    let mut first = Replica::start(&server, "first", plan()).await;
    first.until_leader().await;
    let mut second = Replica::start(&server, "second", plan()).await;
    let looked = || {
        server
            .seen()
            .iter()
            .filter(|seen| {
                seen.user == "second" && seen.verb == Verb::Get && seen.resource == LEASES
            })
            .count()
    };
    until(|| looked() == 1).await;
    first.kill();
    for _ in 0..5 {
        let before = looked();
        skip(Duration::from_millis(2100)).await;
        until(|| looked() > before).await;
        assert!(!*second.leader.borrow());
    }
    skip(Duration::from_secs(6)).await;
    second.until_leader().await;
    second.stop().await;
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_another_may_start() {
    let server = ApiServer::start().await;
    let mut first = Replica::start(&server, "first", plan()).await;
    first.until_leader().await;
    server.fail(Fault {
        verb: Verb::Update,
        resource: LEASES,
        status: 500,
        times: usize::MAX,
    });
    let before = server.count(Verb::Update, LEASES);
    skip(Duration::from_millis(2100)).await;
    until(|| server.count(Verb::Update, LEASES) > before).await;
    assert!(*first.leader.borrow(), "one failure is no end");
    skip(Duration::from_secs(8)).await;
    tokio::time::timeout(PATIENCE, first.leader.wait_for(|leader| !leader))
        .await
        .unwrap()
        .unwrap();
    server.heal();
    first.until_leader().await;
    first.stop().await;
}

#[tokio::test]
async fn of_two_that_take_it_at_once_one_gets_it() {
    let server = ApiServer::start().await;
    let mut replicas = Vec::new();
    for n in 0..4 {
        replicas.push(Replica::start(&server, &format!("replica-{n}"), plan()).await);
    }
    until(|| !lease(&server).is_null()).await;
    let holder = lease(&server)["holderIdentity"]
        .as_str()
        .unwrap()
        .to_owned();
    let tried = |user: String| {
        server
            .seen()
            .iter()
            .any(|seen| seen.user == user && seen.resource == LEASES)
    };
    until(|| (0..4).all(|n| tried(format!("replica-{n}")))).await;
    for (n, replica) in replicas.iter_mut().enumerate() {
        if holder == format!("replica-{n}") {
            replica.until_leader().await;
        } else {
            assert!(!*replica.leader.borrow());
        }
    }
    for replica in replicas {
        replica.stop().await;
    }
}
