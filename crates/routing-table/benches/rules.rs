//! What rules on method, fields and query cost a request that looks for its route: time, and that nothing is allocated.
//!
//! `cargo bench -p routing-table`. Ratios say more than times on a shared machine.
#![allow(clippy::unwrap_used, reason = "a failed unwrap ends the bench")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use http::{HeaderMap, Method};
use routing_table::matcher::conditions::{HeaderMatch, RequestFields, ValueMatch};
use routing_table::route::DirectResponse;
use routing_table::{
    Action, Conditions, HostMatch, Limits, PathMatch, RetryPolicy, Route, RouteId, Timeouts,
    VirtualHost, VirtualHosts,
};
use std::hint::black_box;
use std::time::Instant;

/// One host with so many rules on one path, none of which fits, and a route without any behind them.
fn hosts(rules: usize) -> VirtualHosts {
    let route = |rule: Option<usize>| {
        let mut conditions = Conditions::default();
        if let Some(rule) = rule {
            conditions.headers.push(HeaderMatch {
                name: "x-variant".parse().unwrap(),
                value: ValueMatch::Exact(format!("v{rule}").into()),
            });
        }
        Route {
            id: RouteId {
                kind: "Bench",
                namespace: "bench".into(),
                name: "rules".into(),
                rule: format!("{rule:?}").into(),
            },
            path: PathMatch::prefix("/"),
            conditions,
            filters: Default::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            client_certificates: None,
            action: Action::Respond(DirectResponse {
                status: 404,
                reason: "bench",
            }),
        }
    };
    let routes = (0..rules).map(Some).chain([None]).map(route).collect();
    let host = VirtualHost {
        host: HostMatch::parse("a.test").unwrap(),
        routes,
        client_certificates: None,
    };
    VirtualHosts::new(vec![host], None)
}

/// Nanoseconds of one look: the best of five.
fn nanos(hosts: &VirtualHosts) -> f64 {
    const LOOKS: u32 = 200_000;
    let mut headers = HeaderMap::new();
    for name in ["host", "user-agent", "accept", "cookie", "x-variant"] {
        headers.insert(name, "none of them".parse().unwrap());
    }
    let fields = RequestFields {
        method: &Method::GET,
        headers: &headers,
        query: Some("a=b"),
        client: &None,
    };
    let once = || {
        let start = Instant::now();
        for _ in 0..LOOKS {
            black_box(hosts.find(black_box("a.test"), black_box("/cart/7"), &fields));
        }
        start.elapsed().as_nanos() as f64 / f64::from(LOOKS)
    };
    (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let none = nanos(&hosts(0));
    println!("no rules: {none:.0} ns");
    for rules in [1, 10, 50] {
        let with = nanos(&hosts(rules));
        let each = (with - none) / rules as f64;
        println!("{rules} rule(s), none of which fits: {with:.0} ns, {each:.1} ns each");
    }
}
