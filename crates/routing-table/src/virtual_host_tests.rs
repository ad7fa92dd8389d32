//! The index finds what a plain walk over all routes finds.
#![allow(
    clippy::unwrap_used,
    reason = "test code: a failed unwrap is a failed test"
)]

use super::*;
use crate::authorities::Authorities;
use crate::client_certificate::CertificateDemand;
use crate::id::RouteId;
use crate::matcher::Conditions;
use crate::matcher::conditions::{CookieMatch, HeaderMatch, QueryMatch, ValueMatch};
use crate::route::{Action, DirectResponse};
use http::{HeaderMap, HeaderName, Method};
use proptest::prelude::*;
use std::net::IpAddr;

fn route(name: usize, path: PathMatch) -> Route {
    let id = RouteId {
        kind: "Ingress",
        namespace: "a".into(),
        name: name.to_string().into(),
        rule: "".into(),
    };
    let action = Action::Respond(DirectResponse {
        status: 503,
        reason: "test",
    });
    Route {
        id,
        path,
        conditions: Default::default(),
        timeouts: Default::default(),
        limits: Default::default(),
        retry: Default::default(),
        filters: Vec::new(),
        client_certificates: None,
        action,
    }
}

/// A plain GET.
fn plain<'a>(headers: &'a HeaderMap) -> RequestFields<'a> {
    RequestFields {
        method: &Method::GET,
        headers,
        query: None,
        client: &None,
    }
}

/// The rules as the documentation has them, without any index.
fn naive<'a>(
    hosts: &'a [VirtualHost],
    host: &str,
    path: &str,
    fields: &RequestFields<'_>,
) -> Option<&'a Route> {
    let rank = |matcher: &HostMatch| match matcher {
        HostMatch::Exact(_) => 0,
        HostMatch::Wildcard(_) => 1,
        HostMatch::Any => 2,
    };
    let best = hosts
        .iter()
        .filter(|one| one.host.matches(host))
        .map(|one| rank(&one.host))
        .min()?;
    let routes = hosts
        .iter()
        .filter(|one| one.host.matches(host) && rank(&one.host) == best)
        .flat_map(|one| &one.routes);
    // `min_by` keeps the first of equals, which is the oldest.
    routes
        .filter(|route| route.path.matches(path) && route.conditions.meets(fields))
        .min_by(|a, b| a.precedence(b))
}

fn host_pattern() -> impl Strategy<Value = HostMatch> {
    "(\\*\\.)?([ab]\\.){0,2}(t|u)|".prop_map(|pattern| HostMatch::parse(&pattern).unwrap())
}

fn path_pattern() -> impl Strategy<Value = PathMatch> {
    ("(/[ab]{0,2}){1,3}/?", 0..3).prop_map(|(path, kind)| match kind {
        0 => PathMatch::Exact(path.as_str().into()),
        1 => PathMatch::prefix(&path),
        _ => PathMatch::StartsWith(path.as_str().into()),
    })
}

/// Mostly none, as most routes have.
fn conditions() -> impl Strategy<Value = Conditions> {
    (0..4, 0..3usize, 0..3usize, 0..4, 0..4).prop_map(|(method, headers, query, cookie, client)| {
        Conditions {
            method: (method == 0).then_some(Method::POST),
            headers: ["x-a", "x-b"]
                .into_iter()
                .take(headers)
                .map(|name| HeaderMatch {
                    name: HeaderName::from_static(name),
                    value: ValueMatch::Present,
                })
                .collect(),
            query: ["a", "b"]
                .into_iter()
                .take(query.saturating_sub(1))
                .map(|name| QueryMatch {
                    name: name.into(),
                    value: ValueMatch::Exact("1".into()),
                })
                .collect(),
            cookies: (cookie == 0)
                .then(|| CookieMatch {
                    name: "a".into(),
                    value: ValueMatch::Present,
                })
                .into_iter()
                .collect(),
            clients: (client == 0)
                .then(|| "10.0.0.0/8".parse().unwrap())
                .into_iter()
                .collect(),
        }
    })
}

fn request() -> impl Strategy<Value = (Method, HeaderMap, Option<String>, Option<IpAddr>)> {
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (flags, 0..3).prop_map(|((post, a, b, cookie, inside), query)| {
        let mut headers = HeaderMap::new();
        for name in [a.then_some("x-a"), b.then_some("x-b")]
            .into_iter()
            .flatten()
        {
            headers.insert(HeaderName::from_static(name), "1".parse().unwrap());
        }
        if cookie {
            headers.insert("cookie", "b=2; a=1".parse().unwrap());
        }
        let query = [None, Some("a=1"), Some("a=2&b=1")][query as usize].map(str::to_owned);
        (
            if post { Method::POST } else { Method::GET },
            headers,
            query,
            inside.then_some(IpAddr::from([10, 1, 2, 3])),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_index_agrees_with_a_walk(
        rules in prop::collection::vec((host_pattern(), path_pattern(), conditions()), 0..20),
        asked in prop::collection::vec(("([ab]\\.){0,3}(t|u)", "(/[ab]{0,3}){1,4}/?", request()), 1..20),
    ) {
        let hosts: Vec<_> = rules
            .into_iter()
            .enumerate()
            .map(|(n, (host, path, conditions))| {
                let routes = vec![Route { conditions, ..route(n, path) }];
                VirtualHost { host, routes, client_certificates: None }
            })
            .collect();
        let index = VirtualHosts::new(hosts.clone(), None);
        for (host, path, (method, headers, query, client)) in asked {
            let fields = RequestFields { method: &method, headers: &headers, query: query.as_deref(), client: &client };
            let found = index.find(&host, &path, &fields).map(|position| &*index.routes()[position]);
            prop_assert_eq!(found, naive(&hosts, &host, &path, &fields), "{} {}", host, path);
        }
    }
}

#[test]
fn ten_thousand_hosts_agree_with_a_walk() {
    let hosts: Vec<_> = (0..10_000)
        .map(|n| {
            let pattern = if n % 10 == 0 {
                format!("*.w{n}.test")
            } else {
                format!("h{n}.test")
            };
            VirtualHost {
                host: HostMatch::parse(&pattern).unwrap(),
                routes: vec![route(n, PathMatch::prefix(&format!("/{}", n % 3)))],
                client_certificates: None,
            }
        })
        .collect();
    let index = VirtualHosts::new(hosts.clone(), Some(route(99_999, PathMatch::prefix("/"))));
    for n in (0..10_000).step_by(97) {
        for host in [
            format!("h{n}.test"),
            format!("x.w{n}.test"),
            format!("w{n}.test"),
            format!("x.y.w{n}.test"),
        ] {
            for path in ["/0", "/1/x", "/2"] {
                let found = index
                    .find(&host, path, &plain(&HeaderMap::new()))
                    .map(|position| index.routes()[position].id.name.to_string());
                let expected = naive(&hosts, &host, path, &plain(&HeaderMap::new()))
                    .map_or("99999".to_owned(), |route| route.id.name.to_string());
                assert_eq!(found, Some(expected), "{host}{path}");
            }
        }
    }
}

#[test]
fn an_exact_host_hides_a_wildcard_and_both_hide_any() {
    let rules = [("", "/any"), ("*.a.test", "/wild"), ("x.a.test", "/exact")];
    let host = |(name, (host, path)): (usize, &(&str, &str))| VirtualHost {
        host: HostMatch::parse(host).unwrap(),
        routes: vec![route(name, PathMatch::prefix(path))],
        client_certificates: None,
    };
    let index = VirtualHosts::new(rules.iter().enumerate().map(host).collect(), None);
    let finds =
        |host: &str, path: &str| index.find(host, path, &plain(&HeaderMap::new())).is_some();
    assert!(
        finds("x.a.test", "/exact") && !finds("x.a.test", "/wild") && !finds("x.a.test", "/any")
    );
    assert!(finds("y.a.test", "/wild") && !finds("y.a.test", "/any"));
    assert!(finds("other.test", "/any"));
}

/// As routes do, so that handshake and request can never disagree.
#[test]
fn demands_are_found_by_the_host_that_serves_a_name() {
    let demand = |depth| {
        Some(Arc::new(ClientCertificates {
            authorities: Arc::new(Authorities {
                source: "".into(),
                certificates: vec![],
                revoked: vec![],
            }),
            demand: CertificateDemand::Required,
            depth,
            pass_certificate: false,
        }))
    };
    let rules = [
        ("", demand(0)),
        ("*.a.test", demand(1)),
        ("open.a.test", None),
        ("x.a.test", demand(2)),
    ];
    let host =
        |(name, (host, demand)): (usize, &(&str, Option<Arc<ClientCertificates>>))| VirtualHost {
            host: HostMatch::parse(host).unwrap(),
            routes: vec![route(name, PathMatch::prefix("/"))],
            client_certificates: demand.clone(),
        };
    let index = VirtualHosts::new(rules.iter().enumerate().map(host).collect(), None);
    for (name, depth) in [
        (None, Some(0)),
        (Some("other.test"), Some(0)),
        (Some("a.test"), Some(0)),
        (Some("y.a.test"), Some(1)),
        (Some("open.a.test"), None),
        (Some("x.a.test"), Some(2)),
    ] {
        let found = index.client_certificates(name).map(|demand| demand.depth);
        assert_eq!(found, depth, "{name:?}");
        let Some(name) = name else { continue };
        let route = &index.routes()[index.find(name, "/", &plain(&HeaderMap::new())).unwrap()];
        let of_route = route.client_certificates.as_ref();
        assert_eq!(of_route.map(|demand| demand.depth), depth, "{name}");
    }
}
