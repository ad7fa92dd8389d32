//! What `/backends` says is what requests meet, while health flips; and what an operator says there costs nobody a request.

use super::millis;
use super::process::BackendProcess;
use super::stand::{Clusters, Stand, WEB, at, gets_requests, is_out_by};
use super::traffic::ask_once;
use crate::load_stand::scaled;
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_what_requests_meet() {
    let mut backends = BackendProcess::several(["one", "two", "three"], &[]);
    let policy =
        "activeCheck: {path: /healthz, interval: 100ms, healthyAfter: 1, unhealthyAfter: 1}";
    let stand = Stand::start("shown", Clusters::new("", policy, &at(&backends))).await;
    let traffic = stand.traffic(200, true, 200 * 60);
    let flips = scaled(9, 60);
    let mut asked = 0;
    for flip in 0..flips {
        let one = flip % 3;
        let addr = backends[one].addr;
        for (health, is_up) in [(500, false), (200, true)] {
            backends[one].tell(&format!("health {health}"));
            stand
                .until(addr, 3 * SECOND, |shown| gets_requests(shown) == is_up)
                .await;
            let shown = stand.endpoint(addr).await;
            assert_eq!(is_out_by(&shown, "active"), !is_up, "{shown}");
            assert_eq!(shown["state"], if is_up { "available" } else { "out" });
            let mut who = BTreeSet::new();
            // Others ask meanwhile, so who is next is as good as random.
            for _ in 0..40 {
                who.insert(ask_once(stand.addr, WEB, "/", "GET").await.0.unwrap());
                asked += 1;
            }
            assert_eq!(who.contains(&backends[one].name), is_up, "{who:?}: {shown}");
            assert_eq!(who.len(), 2 + usize::from(is_up), "{who:?}");
        }
    }
    let shots = traffic.stop().await;
    println!(
        "HN13 health flipped {} times: each time as shown, by {asked} requests; of {} others {} failed {:?}",
        2 * flips,
        shots.len(),
        shots.failed().len(),
        shots.failures(),
    );
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_their_way_and_no_request_fails() {
    let backends = BackendProcess::several(["one", "two"], &["delay 2"]);
    let addr = backends[0].addr;
    let stand = Stand::start("operator", Clusters::new("", "", &at(&backends))).await;
    let traffic = stand.traffic(300, true, 300 * 60);
    let mut phases = Vec::new();
    for (wish, wanted) in [
        (r#"{"weight_percent": 25}"#, 0.2),
        (r#"{"drain": true}"#, 0.0),
        (r#"{"drain": false, "weight_percent": 100}"#, 0.5),
        (r#"{"weight_percent": 0}"#, 0.0),
        (r#"{"weight_percent": 100}"#, 0.5),
    ] {
        stand.wish(addr, wish).await;
        // From the answer on.
        let from = traffic.now();
        tokio::time::sleep(scaled(millis(600), 5 * SECOND)).await;
        phases.push((wish, wanted, from, traffic.now()));
    }
    let shots = traffic.stop().await;
    for (wish, wanted, from, to) in phases {
        let of_phase = shots.begun(from, to);
        let share = of_phase.share("one");
        println!(
            "HN13 POST {wish}: share {:.1} % of {} requests",
            share * 100.0,
            of_phase.len()
        );
        assert!((share - wanted).abs() <= if wanted == 0.0 { 0.0 } else { 0.03 });
    }
    println!(
        "HN13 operator: {} requests, {} failed {:?}",
        shots.len(),
        shots.failed().len(),
        shots.failures()
    );
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
}
