//! The loop by itself, on a clock that stands still until everybody waits.

use crate::harness::{Loop, class, ingress, service, slice};
use controller::Change;
use serde_json::Value;
use std::time::Duration;
use translate::{Kind, Object};

fn object(kind: Kind, value: Value) -> Object {
    translate::manifest::object(kind, value).unwrap()
}

async fn synced() -> Loop {
    let running = Loop::start(None);
    for (kind, objects) in [
        (Kind::IngressClass, vec![class()]),
        (Kind::Service, vec![service("web")]),
        (Kind::EndpointSlice, vec![slice("web", "10.0.0.1")]),
        (Kind::Secret, vec![]),
        (Kind::ConfigMap, vec![]),
        (Kind::BackendPolicy, vec![]),
        (Kind::Ingress, vec![ingress("web", "web.test")]),
    ] {
        assert_eq!(running.now().tables, 0);
        let objects = objects
            .into_iter()
            .map(|value| object(kind, value))
            .collect();
        running
            .changes
            .send(Change::Replace(kind, objects))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(running.now().tables, 1, "the last kind made it whole");
    running
}

#[tokio::test(start_paused = true)]
async fn a_flapping_ingress_is_translated_ten_times_a_second_at_most() {
    let running = synced().await;
    let before = running.metrics.translations.get();
    for n in 0..500 {
        let flapping = ingress("web", &format!("web-{n}.test"));
        running
            .changes
            .send(Change::Upsert(object(Kind::Ingress, flapping)))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let translations = running.metrics.translations.get() - before;
    assert!(
        (50..=101).contains(&translations),
        "{translations} in ten seconds"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        running.now().has("host web-499.test"),
        "the last state is published"
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_do_not_wait_for_a_translation() {
    let mut running = synced().await;
    let before = running.metrics.translations.get();
    let start = tokio::time::Instant::now();
    running
        .changes
        .send(Change::Upsert(object(
            Kind::EndpointSlice,
            slice("web", "10.0.0.2"),
        )))
        .await
        .unwrap();
    running.until_shows("10.0.0.2:8080").await;
    assert_eq!(start.elapsed(), Duration::ZERO, "of the stopped clock");
    assert_eq!(running.metrics.translations.get(), before);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        running.metrics.translations.get(),
        before + 1,
        "for the diagnostics"
    );
    assert_eq!(
        (running.now().tables, running.now().endpoint_updates),
        (1, 1),
        "which changed no table"
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_objects_is_one_translation() {
    let running = synced().await;
    let before = running.metrics.translations.get();
    for n in 0..1000 {
        let change = Change::Upsert(object(
            Kind::Ingress,
            ingress(&format!("many-{n}"), &format!("many-{n}.test")),
        ));
        running.changes.send(change).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.metrics.translations.get(), before + 1);
    assert_eq!(running.now().text().matches("host many-").count(), 1000);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_nothing() {
    let running = synced().await;
    let before = running.metrics.translations.get();
    let again = vec![object(Kind::Ingress, ingress("web", "web.test"))];
    running
        .changes
        .send(Change::Replace(Kind::Ingress, again))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.metrics.translations.get(), before);
    assert_eq!(
        (running.now().tables, running.now().endpoint_updates),
        (1, 0)
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_nobody_can_send_changes() {
    let mut running = synced().await;
    running.changes = tokio::sync::mpsc::channel(1).0;
    // Its end of the channel is closed with it.
    while running.published.changed().await.is_ok() {}
}
