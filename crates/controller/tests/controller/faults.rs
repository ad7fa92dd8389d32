//! An API server that fails in every way it can: the table stays, and what changed meanwhile is live afterwards.

use crate::harness::{Replica, ingress, put_shop, skip, slice, until};
use serde_json::{Value, json};
use std::time::Duration;
use test_support::ApiServer;
use test_support::api_server::{ENDPOINT_SLICES, Fault, INGRESSES, SERVICES, Verb};
use tokio::time::Instant;

async fn shop() -> (ApiServer, Replica) {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut replica = Replica::watching(&server).await;
    replica.inner.until_shows("10.0.0.1:8080").await;
    until(|| {
        server.count(Verb::Watch, INGRESSES) == 1 && server.count(Verb::Watch, ENDPOINT_SLICES) == 1
    })
    .await;
    (server, replica)
}

#[tokio::test]
async fn a_dropped_watch_goes_on_where_it_was() {
    let (server, mut replica) = shop().await;
    server.drop_watches(INGRESSES);
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    assert_eq!(server.count(Verb::List, INGRESSES), 1);
    replica.stop().await;
}

/// Nothing came of Ingresses for a long time, and the past is compacted: without the bookmark only a list would do.
#[tokio::test]
async fn a_bookmark_says_where_a_dropped_watch_goes_on() {
    for bookmarked in [true, false] {
        let (server, mut replica) = shop().await;
        server.put(slice("web", "10.0.0.2"));
        replica.inner.until_shows("10.0.0.2:8080").await;
        if bookmarked {
            server.bookmark();
        }
        server.compact();
        server.drop_watches(INGRESSES);
        server.put(ingress("other", "other.test"));
        replica.inner.until_shows("host other.test").await;
        let lists = if bookmarked { 1 } else { 2 };
        assert_eq!(server.count(Verb::List, INGRESSES), lists);
        replica.stop().await;
    }
}

#[tokio::test]
async fn an_expired_watch_lists_again() {
    let (server, mut replica) = shop().await;
    server.put(ingress("gone", "gone.test"));
    replica.inner.until_shows("host gone.test").await;
    // The deletion is compacted away with everything else: only a list can tell.
    server.drop_watches(INGRESSES);
    server.delete(INGRESSES, "shop", "gone");
    server.put(ingress("other", "other.test"));
    server.compact();
    replica.inner.until_failed("Ingress", 1).await;
    let after = replica
        .inner
        .until(|published| published.has("other.test") && !published.has("gone.test"))
        .await;
    assert!(after.has("host web.test"));
    replica.stop().await;
}

#[tokio::test]
async fn a_410_for_the_request_itself_lists_again_too() {
    let (server, mut replica) = shop().await;
    server.fail(Fault {
        verb: Verb::Watch,
        resource: INGRESSES,
        status: 410,
        times: 1,
    });
    server.drop_watches(INGRESSES);
    replica.inner.until_failed("Ingress", 1).await;
    until(|| server.count(Verb::List, INGRESSES) == 2).await;
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    replica.stop().await;
}

#[tokio::test]
async fn a_watch_that_always_expires_lists_every_five_seconds_at_most() {
    let (server, replica) = shop().await;
    server.fail(Fault {
        verb: Verb::Watch,
        resource: INGRESSES,
        status: 410,
        times: usize::MAX,
    });
    server.drop_watches(INGRESSES);
    replica.inner.until_failed("Ingress", 1).await;
    let start = Instant::now();
    while server.count(Verb::List, INGRESSES) < 6 {
        skip(Duration::from_millis(500)).await;
    }
    // The first of the five may have come at once.
    assert!(
        start.elapsed() >= Duration::from_secs(5) * 3,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(replica.inner.now().tables, 1);
    replica.stop().await;
}

#[tokio::test]
async fn an_outage_changes_nothing_until_it_is_over() {
    let (server, mut replica) = shop().await;
    server.stop().await;
    until(|| {
        replica
            .inner
            .metrics
            .watch_errors
            .with_label_values(&["Ingress"])
            .get()
            > 0
    })
    .await;
    server.put(ingress("other", "other.test"));
    server.put(slice("web", "10.0.0.2"));
    skip(Duration::from_secs(600)).await;
    assert_eq!(
        (
            replica.inner.now().tables,
            replica.inner.now().endpoint_updates
        ),
        (1, 0)
    );
    server.resume().await;
    replica
        .inner
        .until(|published| published.has("host other.test") && published.has("10.0.0.2:8080"))
        .await;
    replica.stop().await;
}

#[tokio::test]
async fn connections_that_fall_silent_are_noticed() {
    let (server, mut replica) = shop().await;
    until(|| server.count(Verb::Watch, SERVICES) == 1).await;
    server.blackhole_connections();
    server.put(ingress("other", "other.test"));
    skip(Duration::from_secs(66)).await;
    replica.inner.until_shows("host other.test").await;
    replica.stop().await;
}

#[tokio::test]
async fn refusals_are_waited_out() {
    let (server, mut replica) = shop().await;
    for status in [500, 403, 429] {
        server.fail(Fault {
            verb: Verb::List,
            resource: INGRESSES,
            status,
            times: 1,
        });
    }
    server.expire_watches(INGRESSES);
    let errors = replica
        .inner
        .metrics
        .watch_errors
        .with_label_values(&["Ingress"]);
    while errors.get() < 4 {
        skip(Duration::from_secs(1)).await;
    }
    skip(Duration::from_secs(30)).await;
    server.put(ingress("other", "other.test"));
    let after = replica.inner.until_shows("host other.test").await;
    assert_eq!(after.tables, 2, "nothing was published on the way");
    replica.stop().await;
}

#[tokio::test]
async fn one_object_that_cannot_be_decoded_costs_only_itself() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut broken = ingress("broken", "broken.test");
    broken["spec"]["rules"] = json!("not a list");
    server.put(broken.clone());
    let mut replica = Replica::watching(&server).await;
    replica.inner.until_shows("host web.test").await;
    let undecodable = replica
        .inner
        .metrics
        .undecodable
        .with_label_values(&["Ingress"]);
    assert_eq!(undecodable.get(), 1);
    // It may be mended, and broken again, while it is watched.
    server.put(ingress("broken", "mended.test"));
    replica.inner.until_shows("host mended.test").await;
    server.put(broken);
    let after = replica
        .inner
        .until(|published| !published.has("mended.test"))
        .await;
    assert!(after.has("host web.test"));
    assert_eq!(undecodable.get(), 2);
    assert_eq!(
        server.count(Verb::List, INGRESSES),
        1,
        "the watch never ended"
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_line_that_is_no_event_lists_again() {
    let (server, mut replica) = shop().await;
    server.send_line(INGRESSES, r#"{"type":"MODIFIED","object":5}"#);
    replica.inner.until_failed("Ingress", 1).await;
    until(|| server.count(Verb::List, INGRESSES) == 2).await;
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    replica.stop().await;
}

#[tokio::test]
async fn events_from_the_past_are_no_news() {
    let (server, mut replica) = shop().await;
    let old = server.put(ingress("other", "old.test"));
    let new = server.put(ingress("other", "new.test"));
    replica.inner.until_shows("host new.test").await;
    let send = |kind: &str, object: &Value| {
        server.send_line(
            INGRESSES,
            &json!({"type": kind, "object": object}).to_string(),
        )
    };
    let before = replica.inner.now().tables;
    send("MODIFIED", &old);
    send("DELETED", &old);
    send("MODIFIED", &new);
    send("ADDED", &old);
    server.put(ingress("last", "last.test"));
    let after = replica.inner.until_shows("host last.test").await;
    assert!(after.has("host new.test") && !after.has("old.test"));
    assert_eq!(after.tables, before + 1);
    replica.stop().await;
}

async fn twenty() -> (ApiServer, Replica) {
    let (server, mut replica) = shop().await;
    for n in 0..20 {
        server.put(ingress(&format!("many-{n}"), &format!("many-{n}.test")));
    }
    replica
        .inner
        .until(|published| published.text().matches("host many-").count() == 20)
        .await;
    (server, replica)
}

#[tokio::test]
async fn an_empty_list_is_not_believed_at_once() {
    let (server, mut replica) = twenty().await;
    let before = replica.inner.now().tables;
    let doubtful = replica
        .inner
        .metrics
        .doubtful_lists
        .with_label_values(&["Ingress"]);
    server.hide(INGRESSES, 1);
    server.expire_watches(INGRESSES);
    replica.inner.until_failed("Ingress", 1).await;
    until(|| doubtful.get() == 1).await;
    // Meanwhile the watch works.
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    let lists = server.count(Verb::List, INGRESSES);
    skip(Duration::from_secs(5)).await;
    until(|| server.count(Verb::List, INGRESSES) == lists + 1).await;
    server.put(ingress("last", "last.test"));
    let after = replica.inner.until_shows("host last.test").await;
    assert_eq!(after.text().matches("host many-").count(), 20);
    assert_eq!(after.tables, before + 2);
    replica.stop().await;
}

#[tokio::test]
async fn an_empty_list_is_believed_the_second_time() {
    let (server, mut replica) = twenty().await;
    let doubtful = replica
        .inner
        .metrics
        .doubtful_lists
        .with_label_values(&["Ingress"]);
    server.hide(INGRESSES, 2);
    server.expire_watches(INGRESSES);
    replica.inner.until_failed("Ingress", 1).await;
    until(|| doubtful.get() == 1).await;
    assert!(replica.inner.now().has("host many-0.test"));
    skip(Duration::from_secs(5)).await;
    replica
        .inner
        .until(|published| !published.has("host many-"))
        .await;
    replica.stop().await;
}

#[tokio::test]
async fn a_restored_server_leaves_no_ghosts() {
    let (server, mut replica) = shop().await;
    let backup = server.backup();
    for n in 0..5 {
        server.put(ingress("ghost", &format!("ghost-{n}.test")));
    }
    replica.inner.until_shows("host ghost-4.test").await;
    server.restore(backup);
    for resource in [INGRESSES, SERVICES, ENDPOINT_SLICES] {
        server.drop_watches(resource);
    }
    skip(Duration::from_secs(31)).await;
    let after = replica
        .inner
        .until(|published| !published.has("ghost"))
        .await;
    assert!(after.has("host web.test"));
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    replica.stop().await;
}
