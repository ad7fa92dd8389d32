//! What is counted, as a scrape shows it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;

#[test]
fn codes_can_be_searched() {
    assert!(CODES.is_sorted());
}

#[test]
fn series_are_summed_over_workers_and_go_with_their_route() {
    let metrics = Arc::new(Metrics::new(2));
    let registry = prometheus::Registry::new();
    registry
        .register(Box::new(Collected::new(Arc::clone(&metrics)).unwrap()))
        .unwrap();
    let id = RouteId {
        kind: "Ingress",
        namespace: "shop".into(),
        name: "web".into(),
        rule: "".into(),
    };
    let stats = metrics.route(&id, Some(&ClusterId::new("shop", "api", 80)));
    stats.record(0, 200, Duration::from_millis(7), 1, 10);
    stats.record(1, 200, Duration::from_secs(20), 2, 20);
    stats.record(1, 418, Duration::ZERO, 0, 0);
    metrics.worker(0).accepted.add(3);
    metrics.worker(1).accepted.add(4);
    let text = |registry: &prometheus::Registry| {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    };
    let shown = text(&registry);
    let labels = r#"ingress="web",namespace="shop",service="api""#;
    for line in [
        format!(r#"tidegate_requests_total{{code="200",{labels}}} 2"#),
        format!(r#"tidegate_requests_total{{code="other",{labels}}} 1"#),
        format!(r#"tidegate_request_duration_seconds_bucket{{{labels},le="0.01"}} 2"#),
        format!(r#"tidegate_request_duration_seconds_bucket{{{labels},le="+Inf"}} 3"#),
        format!(r#"tidegate_response_body_bytes_total{{{labels}}} 30"#),
        "tidegate_connections_accepted_total 7".to_owned(),
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in\n{shown}"
        );
    }
    metrics.published(1, std::iter::empty());
    let shown = text(&registry);
    assert!(!shown.contains("web"), "{shown}");
    assert!(shown.contains("tidegate_table_generation 1"), "{shown}");
}
