//! Who is slow, or says that it is busy, gets less, and its share again when that is over.

use super::millis;
use super::process::BackendProcess;
use super::stand::{Clusters, Stand, at};
use crate::load_stand::scaled;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn the_faster_of_two_is_asked_more_also_when_they_change_places() {
    let [mut fast, mut slow] = ["fast", "slow"].map(|name| BackendProcess::start(name, &[]));
    fast.tell("delay 5");
    slow.tell("delay 50");
    let endpoints = [&fast, &slow].map(|backend| backend.addr.to_string());
    let clusters = Clusters::new("", "balancing: peak_ewma", &endpoints);
    let stand = Stand::start("ewma", clusters).await;
    let traffic = stand.traffic(200, false, 200 * 60);
    tokio::time::sleep(scaled(2 * SECOND, 5 * SECOND)).await;
    let swapped = traffic.now();
    fast.tell("delay 50");
    slow.tell("delay 5");
    tokio::time::sleep(scaled(5 * SECOND, 20 * SECOND)).await;
    let shots = traffic.stop().await;
    let before = shots.begun(SECOND, swapped).share("fast");
    // The first half second in which the other has more than 80 %.
    let step = millis(500);
    let after = (0..60).find(|n| {
        let from = swapped + step * *n;
        shots.begun(from, from + step).share("slow") > 0.8
    });
    let after = after.expect("the shares change places") * step;
    let then = shots.begun(swapped + after, 60 * SECOND).share("slow");
    println!(
        "peak_ewma, 5 ms against 50 ms: {} requests, the fast one gets {:.1} %; swapped, the other has more than 80 % from {after:?} on, {:.1} % in all; {} failed",
        shots.len(),
        before * 100.0,
        then * 100.0,
        shots.failed().len(),
    );
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failed().failures());
    assert!(before > 0.8 && then > 0.8);
    assert!(after < 10 * SECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_time_has_it_and_then_its_share_again() {
    let mut backends = BackendProcess::several(["busy", "other"], &[]);
    let addr = backends[0].addr;
    let stand = Stand::start("retry-after", Clusters::new("", "", &at(&backends))).await;
    let traffic = stand.traffic(200, false, 200 * 60);
    tokio::time::sleep(millis(500)).await;
    backends[0].tell("status 429 2");
    let eased = |shown: &serde_json::Value| shown["effective_weight"].as_f64() < Some(0.5);
    stand.until(addr, 3 * SECOND, eased).await;
    let shown = stand.endpoint(addr).await;
    backends[0].tell("status 200");
    let begun = traffic.now();
    let lasted = stand.until(addr, 10 * SECOND, |shown| !eased(shown)).await;
    let ended = traffic.now();
    tokio::time::sleep(SECOND).await;
    let shots = traffic.stop().await;
    let share = |from, to| shots.begun(from, to).share("busy") * 100.0;
    let (first, eased, again) = (
        share(Duration::ZERO, millis(450)),
        share(begun, ended - millis(100)),
        share(ended + millis(50), 60 * SECOND),
    );
    println!(
        "HN2 429 with Retry-After: 2: share {first:.0} %, then {eased:.1} % for {lasted:.2?} ({}), then {again:.0} %; {:?}",
        shown["state"],
        shots.failures(),
    );
    assert_eq!(shown["state"], "available", "it is not dead");
    let failures = shots.failures();
    assert!(
        failures.keys().all(|what| *what == "status 429"),
        "{failures:?}"
    );
    assert!((first - 50.0).abs() <= 5.0 && (again - 50.0).abs() <= 5.0);
    // A tenth of its weight, beside one with all of it: an eleventh.
    assert!((2.0..=15.0).contains(&eased));
    assert!(lasted >= millis(1_700) && lasted <= millis(3_000));
}
