//! Filters over real sockets: who is let in and how often, what the upstream and the client get.

use super::raw::{Act, RawBackend, exchange};
use super::{Rule, host, serve, serve_with, table};
use crate::Settings;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing_table::Filter;
use routing_table::filter::{
    AccessList, HeaderChanges, PathRewrite, RateLimit, Redirect, RedirectTo, RequestHeaders,
    ResponseHeaders, UpstreamHeader, UrlRewrite, network,
};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Answer, get};
use tokio::net::TcpListener;

impl Rule {
    fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }
}

/// Whoever says so in `X-Forwarded-For` is the client.
fn behind_a_proxy() -> Settings {
    Settings {
        workers: 2,
        trusted_proxies: vec![network("127.0.0.0/8").unwrap()],
        ..Settings::default()
    }
}

async fn status_for(addr: SocketAddr, client: &str) -> String {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: {client}\r\nConnection: close\r\n\r\n"
    );
    exchange(addr, request.as_bytes()).await
}

fn access(deny: &[&str], allow: &[&str]) -> Filter {
    let read = |all: &[&str]| all.iter().map(|one| network(one).unwrap()).collect();
    Filter::AccessList(AccessList {
        deny: read(deny),
        allow: read(allow),
    })
}

#[tokio::test]
async fn clients_are_let_in_by_their_address() {
    let backend = Backend::start("a").await;
    let rule = host("a.test", &[backend.addr]);
    let rule = rule.filter(access(&["192.0.2.7"], &["192.0.2.0/24", "2001:db8::/32"]));
    let proxy = serve_with(&[rule], behind_a_proxy());
    for (client, status) in [
        ("192.0.2.7", "403"),
        ("192.0.2.8", "200"),
        ("198.51.100.1", "403"),
        ("2001:db8::1", "200"),
        ("2001:db9::1", "403"),
        ("::ffff:192.0.2.8", "200"),
        // What an untrusted hop claims does not count, nor does what is no address.
        ("192.0.2.8, 198.51.100.1", "403"),
        ("192.0.2.8, x", "403"),
    ] {
        let answer = status_for(proxy.addr, client).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{client}: {answer}"
        );
    }
    // To who is not behind a trusted proxy, its field is of no use.
    let rule = host("a.test", &[backend.addr]).filter(access(&[], &["192.0.2.0/24"]));
    let proxy = serve(&[rule]);
    assert!(
        status_for(proxy.addr, "192.0.2.8")
            .await
            .starts_with("HTTP/1.1 403 ")
    );
}

fn ten_a_second() -> Filter {
    Filter::RateLimit(RateLimit {
        requests: 10,
        per: Duration::from_secs(1000),
        at_once: 10,
        exempt: vec![network("10.0.0.0/8").unwrap()],
    })
}

#[tokio::test]
async fn a_client_may_ask_so_often_whatever_worker_it_meets() {
    let backend = Backend::start("a").await;
    let rules = || [host("a.test", &[backend.addr]).filter(ten_a_second())];
    let mut proxy = serve_with(&rules(), behind_a_proxy());
    for _ in 0..10 {
        assert!(
            status_for(proxy.addr, "192.0.2.1")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    }
    let refused = status_for(proxy.addr, "192.0.2.1").await.to_lowercase();
    assert!(refused.starts_with("http/1.1 429 "), "{refused}");
    let seconds = refused.split("retry-after: ").nth(1).unwrap();
    let seconds: u32 = seconds.split("\r\n").next().unwrap().parse().unwrap();
    assert!((90..=100).contains(&seconds), "{seconds}");
    assert!(
        status_for(proxy.addr, "192.0.2.2")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    for _ in 0..20 {
        assert!(
            status_for(proxy.addr, "10.0.0.1")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    }
    // A new table forgets nobody.
    proxy.publisher.apply(table(&rules())).unwrap();
    let addr = proxy.publisher.addresses()[0].1;
    assert!(
        status_for(addr, "192.0.2.1")
            .await
            .starts_with("HTTP/1.1 429 ")
    );
    assert_eq!(backend.requests(), 31);
}

fn rewrite(path: Option<PathRewrite>, host: Option<&str>) -> Filter {
    Filter::UrlRewrite(UrlRewrite {
        path,
        host: host.map(Box::from),
    })
}

#[tokio::test]
async fn the_upstream_is_asked_for_another_path_and_host() {
    let backend = Backend::start("a").await;
    let base = rewrite(Some(PathRewrite::base("/base")), Some("inside.test"));
    let proxy = serve(&[host("a.test", &[backend.addr]).filter(base)]);
    assert_eq!(
        get(proxy.addr, "a.test", "/x?k=1").await.unwrap().text(),
        "a"
    );
    let seen = backend.last().unwrap();
    assert_eq!(seen.target, "/base/x?k=1");
    assert_eq!(seen.headers["host"], "inside.test");
    assert_eq!(seen.headers["x-forwarded-host"], "a.test");
}

#[tokio::test]
async fn http2_is_asked_for_another_path_and_host_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(async |request: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(request.uri().to_string()))
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        builder
            .serve_connection(TokioIo::new(stream), service)
            .await
    });
    let whole = rewrite(Some(PathRewrite::Whole("/y".into())), Some("inside.test"));
    let proxy = serve(&[host("a.test", &[addr]).http2().filter(whole)]);
    let answer = get(proxy.addr, "a.test", "/x?k=1").await.unwrap();
    assert_eq!(answer.text(), "http://inside.test/y?k=1");
}

#[tokio::test]
async fn a_rewrite_does_not_compound_over_attempts() {
    let closing = RawBackend::start(&[Act::ReplyAndClose("")]).await;
    let backend = Backend::start("a").await;
    let base = rewrite(Some(PathRewrite::base("/base")), None);
    let proxy = serve(&[host("a.test", &[closing.addr, backend.addr]).filter(base)]);
    for _ in 0..4 {
        assert_eq!(get(proxy.addr, "a.test", "/x").await.unwrap().text(), "a");
        assert_eq!(backend.last().unwrap().target, "/base/x");
    }
}

#[tokio::test]
async fn a_rewritten_path_that_has_two_readings_is_refused() {
    let backend = Backend::start("a").await;
    let base = rewrite(Some(PathRewrite::base("/")), None);
    let proxy = serve(&[host("a.test", &[backend.addr]).filter(base)]);
    assert_eq!(
        get(proxy.addr, "a.test", "//evil.test/")
            .await
            .unwrap()
            .status,
        400
    );
    assert_eq!(backend.requests(), 0);
}

fn redirect(to: RedirectTo) -> Filter {
    Filter::Redirect(Redirect { status: 308, to })
}

fn location(answer: &str) -> Option<String> {
    let mut lines = answer.lines();
    let line = lines.find(|line| line.to_ascii_lowercase().starts_with("location: "))?;
    Some(line[10..].to_owned())
}

#[tokio::test]
async fn plain_requests_are_sent_to_https() {
    let backend = Backend::start("a").await;
    let rule = || host("a.test", &[backend.addr]).filter(redirect(RedirectTo::Https { port: 443 }));
    let proxy = serve(&[rule()]);
    for (line, expected) in [
        ("GET /x?y", Some("https://a.test/x?y")),
        ("POST /x/", Some("https://a.test/x/")),
        // R9: nothing a client sends leads to another host.
        ("GET //evil.test/%2e", None),
        ("GET //evil.test/", Some("https://a.test//evil.test/")),
        ("GET /.well-known/acme-challenge/t", None),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: A.test:80\r\nContent-Length: 0\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(proxy.addr, request.as_bytes()).await;
        assert_eq!(location(&answer).as_deref(), expected, "{line}: {answer}");
        assert!(
            expected.is_none() || answer.starts_with("HTTP/1.1 308 "),
            "{answer}"
        );
    }
    assert_eq!(backend.requests(), 1, "the challenge");
    let proxy = serve_with(&[rule()], behind_a_proxy());
    for (proto, status) in [("https", "200"), ("http", "308")] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: {proto}\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(proxy.addr, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{proto}: {answer}"
        );
    }
}

fn changes(remove: &str, set: (&'static str, &'static str)) -> HeaderChanges {
    HeaderChanges {
        remove: vec![remove.parse().unwrap()],
        set: vec![(set.0.parse().unwrap(), HeaderValue::from_static(set.1))],
    }
}

#[tokio::test]
async fn fields_are_changed_both_ways_and_the_endpoint_is_named() {
    let backend = Backend::start("a").await;
    let asked = RequestHeaders(changes("user-agent", ("x-tenant", "one")));
    let answered = ResponseHeaders(changes("x-powered-by", ("x-frame-options", "DENY")));
    let rule = host("a.test", &[backend.addr])
        .filter(Filter::RequestHeaders(asked))
        .filter(Filter::ResponseHeaders(answered))
        .filter(Filter::UpstreamHeader(UpstreamHeader(
            "upstream".parse().unwrap(),
        )));
    let proxy = serve(&[rule]);
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\r\nX-Tenant: two\r\nX-Tenant: three\r\nConnection: close\r\n\r\n";
    let answer = exchange(proxy.addr, request.as_bytes())
        .await
        .to_ascii_lowercase();
    assert!(answer.contains("\r\nx-frame-options: deny\r\n"), "{answer}");
    assert!(
        answer.contains(&format!("\r\nupstream: {}\r\n", backend.addr)),
        "{answer}"
    );
    let seen = backend.last().unwrap();
    assert_eq!(
        seen.headers.get_all("x-tenant").iter().collect::<Vec<_>>(),
        ["one"]
    );
    assert!(!seen.headers.contains_key("user-agent"));
    // What is set is not the client's to strip, and what it wants stripped of its own is.
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Hop: 1\r\nX-Tenant: two\r\nConnection: close, X-Tenant, X-Hop\r\n\r\n";
    exchange(proxy.addr, request.as_bytes()).await;
    let seen = backend.last().unwrap();
    assert_eq!(seen.headers["x-tenant"], "one");
    assert!(!seen.headers.contains_key("x-hop"));
}

#[tokio::test]
async fn an_answer_of_our_own_names_no_endpoint() {
    let name = Filter::UpstreamHeader(UpstreamHeader("upstream".parse().unwrap()));
    let proxy = serve(&[host("a.test", &[]).filter(name)]);
    let answer: Answer = get(proxy.addr, "a.test", "/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(!answer.headers.contains_key("upstream"));
}
