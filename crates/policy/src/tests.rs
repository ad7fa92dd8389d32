//! What fields come to, what is refused, and that texts, examples and defaults say the truth.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::annotations::{fields, schema};
use crate::{Built, PolicySpec};
use routing_table::Policy;
use routing_table::policy::{Balancing, CheckKind, Expected, HashOn};
use serde_json::json;
use std::time::Duration;

fn spec(value: serde_json::Value) -> PolicySpec {
    serde_json::from_value(value).unwrap()
}

#[track_caller]
fn refuses(value: serde_json::Value, reason: &str) {
    let error = serde_json::from_value::<PolicySpec>(value.clone()).unwrap_err();
    assert!(error.to_string().contains(reason), "{value}: {error}");
}

#[track_caller]
fn contradicts(value: serde_json::Value, field: &str) {
    let (built, contradictions) = spec(value.clone()).build();
    let fields: Vec<_> = contradictions
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    assert_eq!(fields, [field], "{value}: {built:?}");
}

#[test]
fn nothing_declared_is_the_default() {
    assert_eq!(PolicySpec::default().build(), (Built::default(), vec![]));
    assert_eq!(Built::default().policy, Policy::default());
}

#[test]
fn every_field_has_a_doc_and_an_example_that_works() {
    assert!(fields().len() > 50, "{}", fields().len());
    let mut names: Vec<_> = fields().iter().map(|field| &field.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), fields().len());
    for field in fields() {
        assert!(field.doc.ends_with('.'), "{}: {:?}", field.name, field.doc);
        let read = field.read(&field.example);
        assert!(read.is_ok(), "{}: {read:?}", field.name);
        assert_ne!(read.unwrap(), PolicySpec::default(), "{}", field.name);
    }
}

/// What the texts of the fields promise.
#[test]
fn defaults_are_those_of_the_docs() {
    let groups = json!({
        "affinity": {}, "activeCheck": {}, "agentCheck": {"port": 1}, "outlierDetection": {},
        "circuitBreaker": {"latency": "1s"}, "maxInFlight": 1,
    });
    let (built, contradictions) = spec(groups).build();
    assert_eq!(contradictions, []);
    let check = built.policy.active_check.unwrap();
    assert_eq!(check, Default::default());
    assert_eq!(built.policy.outlier.unwrap(), Default::default());
    let spans = |field: &str| {
        let name = field.to_owned();
        let field = fields().iter().find(|field| field.name == name).unwrap();
        let (_, default) = field.doc.rsplit_once("Default ").unwrap();
        crate::value::duration(default.trim_end_matches('.')).unwrap()
    };
    let agent = built.policy.agent_check.unwrap();
    let breaker = built.policy.breaker.unwrap();
    let outlier = routing_table::policy::OutlierDetection::default();
    for (field, is) in [
        ("active-check-interval", check.interval),
        ("active-check-timeout", check.timeout),
        ("agent-check-interval", agent.interval),
        ("agent-check-timeout", agent.timeout),
        ("circuit-breaker-window", breaker.window),
        ("circuit-breaker-open", breaker.open),
        ("outlier-detection-interval", outlier.interval),
        ("outlier-detection-max-ejection", outlier.max_ejection),
        ("outlier-detection-unanswered", outlier.unanswered.unwrap()),
        ("queue-timeout", built.in_flight.unwrap().wait),
    ] {
        assert_eq!(spans(field), is, "{field}");
    }
}

#[test]
fn values_are_read_or_refused_with_a_reason() {
    refuses(
        json!({"balancing": "round-robin"}),
        "unknown variant `round-robin`",
    );
    refuses(json!({"hashBy": "body"}), "it is none of client-ip");
    refuses(json!({"hashBy": "header:a b"}), "a name has only letters");
    refuses(json!({"slowStart": "0s"}), "it must be more than 0");
    refuses(json!({"slowStart": "25h"}), "at most 24h");
    refuses(json!({"slowStart": 5}), "invalid type");
    refuses(json!({"subset": 0}), "0 is not from 1 to 65535");
    refuses(json!({"subset": -1}), "-1 is not from 1 to 65535");
    refuses(json!({"panicThreshold": 101}), "101 is not from 0 to 100");
    refuses(
        json!({"activeCheck": {"path": "healthz"}}),
        "it must begin with /",
    );
    refuses(json!({"activeCheck": {"path": "/a b"}}), "no blanks");
    refuses(
        json!({"activeCheck": {"method": "GET /"}}),
        "a name has only letters",
    );
    refuses(
        json!({"activeCheck": {"host": "a\r\nb"}}),
        "no name or address",
    );
    refuses(json!({"activeCheck": {"expected": ["99"]}}), "no status");
    refuses(
        json!({"activeCheck": {"expected": ["300-200"]}}),
        "ends before it begins",
    );
    refuses(
        json!({"activeCheck": {"send": "\\q"}}),
        "stands only before",
    );
    refuses(
        json!({"activeCheck": {"send": "\\x1"}}),
        "two hexadecimal digits",
    );
    refuses(
        json!({"activeCheck": {"intervall": "1s"}}),
        "unknown field `intervall`",
    );
    refuses(json!({"affinity": {"path": "/;a"}}), "cannot have");
    refuses(
        json!({"affinity": {"maxAge": "401d"}}),
        "from one second to 400 days",
    );
    refuses(
        json!({"affinity": {"maxAge": "0"}}),
        "from one second to 400 days",
    );
    let long = "9".repeat(25);
    refuses(json!({"slowStart": long}), "it has 25 bytes");
}

#[test]
fn what_is_declared_is_what_comes_of_it() {
    let (built, contradictions) = spec(json!({
        "balancing": "maglev",
        "hashBy": "header:X-User",
        "activeCheck": {
            "kind": "bytes", "send": "PING\\r\\n", "expect": "\\x2bPONG", "unhealthyAfter": 1,
            "port": 6379, "startsHealthy": false,
        },
        "outlierDetection": {"consecutiveErrors": 0, "successRate": 90, "ejection": "10m"},
        "maxInFlight": 4, "maxQueue": 8,
    }))
    .build();
    assert_eq!(contradictions, []);
    let policy = built.policy;
    let on = HashOn::Header("x-user".into());
    assert_eq!(policy.balancing, Balancing::Maglev(on));
    let check = policy.active_check.unwrap();
    let CheckKind::Bytes {
        send,
        expect: Expected::Start(expect),
    } = &check.kind
    else {
        panic!("{check:?}");
    };
    assert_eq!((&send[..], &expect[..]), (&b"PING\r\n"[..], &b"+PONG"[..]));
    assert_eq!((check.unhealthy_after, check.port), (1, Some(6379)));
    assert!(!check.starts_healthy);
    let outlier = policy.outlier.unwrap();
    assert_eq!(outlier.consecutive_errors, None);
    assert_eq!(outlier.success_rate, Some(90));
    assert_eq!(outlier.max_ejection, Duration::from_secs(600));
    let limit = built.in_flight.unwrap();
    assert_eq!((limit.requests, limit.queue), (4, 8));
}

#[test]
fn an_answer_may_have_to_fit_an_expression() {
    let check =
        json!({"activeCheck": {"kind": "udp", "send": "?", "expectPattern": "^ok [0-9]+$"}});
    let (built, contradictions) = spec(check).build();
    assert_eq!(contradictions, []);
    let check = built.policy.active_check.unwrap().kind;
    assert_eq!(check.to_string(), "udp \"?\" for /^ok [0-9]+$/");
    let check = |check: serde_json::Value| json!({ "activeCheck": check });
    contradicts(
        check(json!({"kind": "bytes", "expect": "a", "expectPattern": "b"})),
        "activeCheck.expectPattern",
    );
    contradicts(
        check(json!({"expectPattern": "b"})),
        "activeCheck.expectPattern",
    );
}

#[test]
fn what_does_not_go_together_is_told() {
    contradicts(
        json!({"balancing": "random", "customBalancing": "mine"}),
        "balancing",
    );
    contradicts(json!({"stickyFor": "5m"}), "stickyFor");
    contradicts(
        json!({"stickyFor": "5m", "balancing": "maglev", "hashBy": "path"}),
        "stickyFor",
    );
    contradicts(json!({"balancing": "ring_hash"}), "hashBy");
    contradicts(json!({"balancing": "random", "hashBy": "path"}), "hashBy");
    contradicts(json!({"cost": {"base": 2}}), "cost");
    contradicts(
        json!({"balancing": "cost", "cost": {"base": 2, "header": "x-cost"}}),
        "cost.base",
    );
    contradicts(
        json!({"activeCheck": {"kind": "tcp", "path": "/"}}),
        "activeCheck.path",
    );
    contradicts(
        json!({"activeCheck": {"service": "a"}}),
        "activeCheck.service",
    );
    contradicts(
        json!({"activeCheck": {"kind": "http", "send": "a"}}),
        "activeCheck.send",
    );
    contradicts(json!({"agentCheck": {}}), "agentCheck.port");
    contradicts(json!({"circuitBreaker": {}}), "circuitBreaker");
    contradicts(
        json!({"outlierDetection": {"ejection": "1m", "maxEjection": "1s"}}),
        "outlierDetection.maxEjection",
    );
    contradicts(json!({"maxQueue": 1}), "maxQueue");
}

#[test]
fn layers_lie_over_each_other_field_by_field() {
    let below = spec(json!({
        "hashBy": "path", "subset": 5, "activeCheck": {"path": "/a", "interval": "1s"},
    }));
    let above = spec(json!({"activeCheck": {"path": "/b"}, "panicThreshold": 10}));
    let both = above.laid_over(&below);
    let expected = spec(json!({
        "hashBy": "path", "subset": 5, "panicThreshold": 10,
        "activeCheck": {"path": "/b", "interval": "1s"},
    }));
    assert_eq!(both, expected);
    let above = spec(json!({"customBalancing": "mine"}));
    let (built, contradictions) = above.laid_over(&below).build();
    assert_eq!(
        (built.policy.balancing, contradictions),
        (Balancing::Custom("mine".into()), vec![])
    );
    // Whoever says how to choose says all of it.
    let above = spec(json!({"balancing": "random"}));
    let (built, contradictions) = above.laid_over(&below).build();
    assert_eq!(
        (built.policy.balancing, contradictions),
        (Balancing::Random, vec![])
    );
}

/// An annotation is the field in other words, so what is refused in one is refused in the other.
#[test]
fn annotations_refuse_what_fields_refuse() {
    for (name, bad, reason) in [
        ("subset", "many", "no whole number"),
        ("subset", "0", "not from 1"),
        ("heed-retry-after", "yes", "neither true nor false"),
        ("active-check-path", "x", "must begin with /"),
        ("active-check-expected", "200, 999", "no status"),
        ("circuit-breaker-open", "1 fortnight", "the unit"),
    ] {
        let field = fields().iter().find(|field| field.name == name).unwrap();
        let error = field.read(bad).unwrap_err();
        assert!(error.contains(reason), "{name} {bad}: {error}");
    }
}

/// API servers refuse a schema with references.
#[test]
fn the_schema_has_no_references() {
    let text = schema().to_string();
    assert!(!text.contains("$ref"), "{text}");
    assert!(text.contains("\"maximum\":65535"), "{text}");
}

#[test]
fn durations() {
    for (text, millis) in [
        ("500ms", 500),
        ("2s", 2_000),
        ("2", 2_000),
        ("1m", 60_000),
        ("24h", 86_400_000),
    ] {
        assert_eq!(
            crate::value::duration(text),
            Ok(Duration::from_millis(millis)),
            "{text}"
        );
    }
    for bad in [
        "-1s",
        "99999h",
        "1e9",
        "NaN",
        "",
        "s",
        "0",
        "0s",
        "1.5s",
        "18446744073709551615h",
        "99999999999999999999s",
        "2s;",
    ] {
        assert!(crate::value::duration(bad).is_err(), "{bad}");
    }
}
