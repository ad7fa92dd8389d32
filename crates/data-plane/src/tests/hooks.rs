//! Hooks over real sockets: that each point is met, in order, with what it is told; what may be changed there, and what not.

use super::raw::exchange;
use super::{host, serve_with};
use crate::Settings;
use crate::hooks::{Answering, EndpointChoice, Failed, Fields, Hook, Reply, Summary, Visit};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use routing_table::RetryPolicy;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Client, get, request};

const SEEN: HeaderName = HeaderName::from_static("x-seen");

fn settings(hooks: Vec<Arc<dyn Hook>>) -> Settings {
    Settings {
        workers: 2,
        hooks,
        ..Settings::default()
    }
}

fn refused() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Writes down where it was called. What is to be done otherwise is in the fields of a request.
#[derive(Debug, Default)]
struct Recording {
    events: Mutex<Vec<String>>,
    avoids: Option<SocketAddr>,
    prefers: Option<SocketAddr>,
    forbids_retries: bool,
}

/// How many points a request has met.
#[derive(Debug, Clone, Default)]
struct Points(u32);

impl Recording {
    fn note(&self, visit: &mut Visit<'_>, event: String) {
        let points = visit.notes.get_or_insert_default::<Points>();
        points.0 += 1;
        let event = format!("{} {event}", points.0);
        self.events.lock().unwrap().push(event);
    }

    /// What was written down, once so many requests are over.
    async fn events(&self, requests: usize) -> Vec<String> {
        for _ in 0..2_000 {
            let over = |event: &&String| event.contains(" log ");
            let events = self.events.lock().unwrap().clone();
            if events.iter().filter(over).count() >= requests {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.events.lock().unwrap());
    }
}

impl Hook for Recording {
    fn on_request(&self, visit: &mut Visit<'_>, fields: &mut Fields<'_>) -> ControlFlow<Reply> {
        let route = visit.route().map(|route| route.name.to_string());
        let told = format!(
            "request {} {} {} {:?} {}",
            visit.client(),
            visit.method(),
            visit.uri(),
            route,
            visit.is_https()
        );
        self.note(visit, told);
        fields.set(SEEN, HeaderValue::from_static("yes")).unwrap();
        fields.remove(&header::USER_AGENT).unwrap();
        for fixed in [header::CONTENT_LENGTH, header::HOST, header::CONNECTION] {
            let refused = fields
                .set(fixed, HeaderValue::from_static("7"))
                .unwrap_err();
            assert!(refused.to_string().contains("cannot be changed"));
        }
        match visit.uri().path() {
            "/reply" => {
                let mut reply = Reply::new(StatusCode::IM_A_TEAPOT);
                reply.headers.insert(SEEN, HeaderValue::from_static("own"));
                let nine = HeaderValue::from_static("9");
                reply.headers.insert(header::CONTENT_LENGTH, nine);
                reply.body = Some(Bytes::from_static(b"short and stout"));
                ControlFlow::Break(reply)
            }
            "/panic" => panic!("as it was asked to"),
            _ => ControlFlow::Continue(()),
        }
    }

    fn on_choice(&self, visit: &mut Visit<'_>, choice: &mut EndpointChoice<'_>) {
        let told = format!(
            "choice {} of {}, tried {}",
            choice.attempt(),
            choice.cluster(),
            choice.tried().len()
        );
        self.note(visit, told);
        if let Some(endpoint) = self.avoids {
            choice.avoid(endpoint);
        }
        if let Some(endpoint) = self.prefers {
            choice.prefer(endpoint);
        }
    }

    fn on_retry(&self, visit: &mut Visit<'_>, failed: &Failed) -> bool {
        self.note(visit, format!("retry {} {}", failed.attempt, failed.reason));
        !self.forbids_retries
    }

    fn on_response(&self, visit: &mut Visit<'_>, answer: &Answering, fields: &mut Fields<'_>) {
        let whose = answer.endpoint.map_or("own", |_| "theirs");
        let told = format!("response {} {whose} {}", answer.status, answer.reason);
        self.note(visit, told);
        assert!(visit.uri().path() != "/panic-late", "as it was asked to");
        fields
            .append(SEEN, HeaderValue::from_static("both"))
            .unwrap();
    }

    fn on_log(&self, visit: &mut Visit<'_>, summary: &Summary) {
        let told = format!(
            "log {} {:?} {} {}+{}",
            summary.status,
            summary.reason,
            summary.attempts,
            summary.request_bytes,
            summary.response_bytes
        );
        self.note(visit, told);
        assert!(visit.uri().path() != "/panic-log", "as it was asked to");
    }
}

#[tokio::test]
async fn every_point_is_met_in_order() {
    let backend = Backend::start("a").await;
    let hook = Arc::new(Recording::default());
    let hooks: Vec<Arc<dyn Hook>> = vec![hook.clone()];
    let proxy = serve_with(&[host("a.test", &[backend.addr])], settings(hooks));
    let mut client = Client::connect(proxy.addr).await.unwrap();
    let mut post = request(Method::POST, "a.test", "/x?y", Bytes::from_static(b"body"));
    let agent = HeaderValue::from_static("test");
    post.headers_mut().insert(header::USER_AGENT, agent);
    let answer = client.send(post).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "a"));
    assert_eq!(answer.headers[&SEEN], "both");
    let got = backend.last().unwrap();
    assert_eq!(got.headers[&SEEN], "yes");
    assert!(!got.headers.contains_key(header::USER_AGENT));
    assert_eq!(&got.body[..], b"body");
    // What a hook sets is not the client's to strip.
    let stripping = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close, x-seen\r\n\r\n";
    exchange(proxy.addr, stripping).await;
    assert_eq!(backend.last().unwrap().headers[&SEEN], "yes");
    assert_eq!(
        hook.events(1).await[..4],
        [
            r#"1 request 127.0.0.1 POST /x?y Some("a.test") false"#,
            "2 choice 1 of test/a.test:80, tried 0",
            "3 response 200 OK theirs ",
            r#"4 log 200 "" 1 4+1"#,
        ]
    );
}

#[tokio::test]
async fn a_hook_may_answer_and_sees_our_own_errors() {
    let backend = Backend::start("a").await;
    let hook = Arc::new(Recording::default());
    let hooks: Vec<Arc<dyn Hook>> = vec![hook.clone()];
    let proxy = serve_with(&[host("a.test", &[backend.addr])], settings(hooks));
    // What a hook says of the length is not what frames the answer.
    let answer = get(proxy.addr, "a.test", "/reply").await.unwrap();
    assert_eq!(answer.status, 418);
    assert_eq!(answer.text(), "short and stout");
    assert_eq!(answer.headers[header::CONTENT_LENGTH], "15");
    let seen: Vec<_> = answer.headers.get_all(&SEEN).iter().collect();
    assert_eq!(seen, ["own", "both"]);
    let answer = get(proxy.addr, "b.test", "/").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.headers[&SEEN]),
        (404, &HeaderValue::from_static("both"))
    );
    assert!(backend.last().is_none(), "it was not asked");
    let events = hook.events(2).await;
    assert_eq!(
        events[1..],
        [
            "2 response 418 I'm a teapot own hook",
            r#"3 log 418 "hook" 0 0+15"#,
            "1 response 404 Not Found own no_route",
            r#"2 log 404 "no_route" 0 0+14"#,
        ]
    );
}

#[tokio::test]
async fn endpoints_can_be_avoided_and_preferred() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let both = [a.addr, b.addr];
    let avoiding = Recording {
        avoids: Some(a.addr),
        ..Recording::default()
    };
    let preferring = Recording {
        prefers: Some(a.addr),
        ..Recording::default()
    };
    for (hook, name) in [(avoiding, "b"), (preferring, "a")] {
        let proxy = serve_with(&[host("a.test", &both)], settings(vec![Arc::new(hook)]));
        for _ in 0..10 {
            let answer = get(proxy.addr, "a.test", "/").await.unwrap();
            assert_eq!(answer.text(), name);
        }
    }
    // Avoided is not forbidden: it serves where there is no other.
    let hook = Recording {
        avoids: Some(a.addr),
        ..Recording::default()
    };
    let proxy = serve_with(&[host("a.test", &[a.addr])], settings(vec![Arc::new(hook)]));
    let answer = get(proxy.addr, "a.test", "/").await.unwrap();
    assert_eq!(answer.text(), "a");
}

#[tokio::test]
async fn a_retry_is_asked_for_and_may_be_forbidden() {
    let alive = Backend::start("alive").await;
    for forbids_retries in [false, true] {
        let hook = Arc::new(Recording {
            prefers: Some(refused()),
            forbids_retries,
            ..Recording::default()
        });
        let gone = hook.prefers.unwrap();
        let hooks: Vec<Arc<dyn Hook>> = vec![hook.clone()];
        let proxy = serve_with(&[host("a.test", &[gone, alive.addr])], settings(hooks));
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        let events = hook.events(1).await;
        assert_eq!(events[2], "3 retry 1 connect_failed");
        if forbids_retries {
            assert_eq!(answer.status, 502);
            assert_eq!(events[3], "4 response 502 Bad Gateway own connect_failed");
        } else {
            assert_eq!(answer.text(), "alive");
            assert_eq!(events[3], "4 choice 2 of test/a.test:80, tried 1");
        }
    }
    // The same for another attempt at the same endpoint.
    let hook = Arc::new(Recording {
        forbids_retries: true,
        ..Recording::default()
    });
    let hooks: Vec<Arc<dyn Hook>> = vec![hook.clone()];
    let mut rule = host("a.test", &[refused()]);
    rule.retry = RetryPolicy {
        same_endpoint: 3,
        ..RetryPolicy::default()
    };
    let proxy = serve_with(&[rule], settings(hooks));
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 502);
    assert_eq!(proxy.metric("tidegate_upstream_connect_errors_total"), 1.0);
}

#[tokio::test]
async fn a_hook_that_panics_costs_its_request() {
    let backend = Backend::start("a").await;
    let hook: Arc<dyn Hook> = Arc::new(Recording::default());
    let proxy = serve_with(&[host("a.test", &[backend.addr])], settings(vec![hook]));
    for (path, status) in [("/panic", 500), ("/panic-late", 500), ("/panic-log", 200)] {
        for _ in 0..3 {
            let answer = get(proxy.addr, "a.test", path).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "a");
        }
    }
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
}

#[tokio::test]
async fn what_is_no_request_meets_no_hook() {
    let backend = Backend::start("a").await;
    let hook = Arc::new(Recording::default());
    let hooks: Vec<Arc<dyn Hook>> = vec![hook.clone()];
    let proxy = serve_with(&[host("a.test", &[backend.addr])], settings(hooks));
    let answer = exchange(proxy.addr, b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    get(proxy.addr, "a.test", "/").await.unwrap();
    assert_eq!(hook.events(1).await.len(), 4, "those of the second alone");
}
