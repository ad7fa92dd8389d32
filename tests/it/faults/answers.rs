//! Backends that accept requests and never answer, or reset the connection in the middle of the answer.

use super::process::BackendProcess;
use super::stand::{Clusters, Stand, WEB, at};
use super::traffic::ask_once;
use super::{millis, within};
use crate::load_stand::scaled;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_never_answers_is_given_up_at_the_limit_and_asked_once() {
    let mut backends = BackendProcess::several(["one", "two"], &["act silent"]);
    let limit = Duration::from_secs(1);
    let clusters = Clusters::new("timeouts: {firstByte: 1s}", "", &at(&backends));
    let stand = Stand::start("silent", clusters).await;
    let count = scaled(40, 100);
    let asked = (0..count).map(|number| {
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        tokio::spawn(ask_once(stand.addr, WEB, "/", method))
    });
    let mut times = Vec::new();
    for answer in asked.collect::<Vec<_>>() {
        let (answer, took) = answer.await.unwrap();
        assert_eq!(answer, Err("status 504".to_owned()));
        times.push(took);
    }
    let seen = backends.each_mut().map(BackendProcess::counts);
    let requests: u64 = seen.iter().map(|counts| counts.requests).sum();
    let posts: u64 = seen.iter().map(|counts| counts.posts).sum();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    println!(
        "E5 never answered: {count} requests, all 504 after {first:.2?} to {last:.2?} with a limit of {limit:?}; the backends saw {requests}, {posts} POSTs"
    );
    assert_eq!((requests, posts), (count, count / 2), "asked once each");
    assert!(*first >= limit - millis(10) && *last <= limit + within(millis(100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_where_an_answer_was_reset_and_the_connection_is_not_used_again() {
    for act in ["act reset-head", "act reset-body"] {
        let mut backend = BackendProcess::start("one", &[act]);
        let clusters = Clusters::new("", "", &[backend.addr.to_string()]);
        let stand = Stand::start(&act.replace(' ', "-"), clusters).await;
        let count = scaled(30, 1_000);
        let mut saw = std::collections::BTreeMap::<String, u64>::new();
        for _ in 0..count {
            let (answer, _) = ask_once(stand.addr, WEB, "/", "GET").await;
            *saw.entry(answer.expect_err("the answer is not whole"))
                .or_default() += 1;
        }
        let counts = backend.counts();
        let reused = stand
            .tidegate
            .metric("tidegate_upstream_reused_total")
            .await;
        println!(
            "E7 {act}: {count} requests, the client saw {saw:?}; {} connections, {reused} reused",
            counts.connections
        );
        assert!(
            saw.keys().all(|what| !what.starts_with("status")),
            "{saw:?}"
        );
        assert_eq!(
            counts.requests, count,
            "nothing is asked again once it has begun to answer"
        );
        assert_eq!((counts.connections, reused), (count, 0.0));
        backend.tell("act answer");
        let (answer, _) = ask_once(stand.addr, WEB, "/", "GET").await;
        assert_eq!(answer, Ok("one".to_owned()));
    }
}
