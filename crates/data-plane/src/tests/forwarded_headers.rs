//! What goes upstream, as lines.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

fn fields(trusted: bool, client_fields: &[(&str, &str)]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in client_fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    let client = Client {
        addr: "192.0.2.7",
        trusted,
        trusted_networks: &[],
        scheme: "https",
        port: 443,
        certificate_fields: false,
    };
    let mut out = Vec::new();
    write_fields(&mut out, &headers, "shop.test", "shop.test", client, b"id");
    String::from_utf8(out)
        .unwrap()
        .trim_end()
        .split("\r\n")
        .map(str::to_owned)
        .collect()
}

const OURS: [&str; 7] = [
    "x-forwarded-for: 192.0.2.7",
    "x-real-ip: 192.0.2.7",
    "x-forwarded-proto: https",
    "x-forwarded-host: shop.test",
    "x-forwarded-port: 443",
    "x-request-id: id",
    "cdn-loop: tidegate",
];

#[track_caller]
fn check(trusted: bool, client_fields: &[(&str, &str)], passed: &[&str]) {
    let expected: Vec<&str> = ["host: shop.test"]
        .iter()
        .chain(passed)
        .chain(&OURS)
        .copied()
        .collect();
    assert_eq!(fields(trusted, client_fields), expected);
}

#[test]
fn the_clients_own_fields_pass() {
    check(
        false,
        &[("accept", "*/*"), ("x-custom", "1"), ("x_custom", "2")],
        &["accept: */*", "x-custom: 1", "x_custom: 2"],
    );
}

#[test]
fn fields_of_the_connection_are_stripped() {
    let hop = [
        ("connection", "x-mine, upgrade"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAA"),
        ("proxy-connection", "close"),
        ("proxy", "http://evil"),
        ("host", "other.test"),
        ("content-length", "5"),
        ("expect", "100-continue"),
    ];
    check(false, &hop, &[]);
}

#[test]
fn connection_cannot_strip_what_is_ours() {
    let listed = [
        (
            "connection",
            "x-forwarded-for, host, authorization, x-real-ip",
        ),
        ("authorization", "Basic x"),
    ];
    check(false, &listed, &["authorization: Basic x"]);
}

#[test]
fn an_untrusted_client_has_no_say_about_itself() {
    let lies = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", "for=1.1.1.1"),
        ("x-request-id", "mine"),
        ("x_forwarded_for", "1.1.1.1"),
        ("x-forwarded_for", "1.1.1.1"),
        ("x_real_ip", "1.1.1.1"),
    ];
    check(false, &lies, &[]);
}

#[test]
fn a_trusted_client_is_believed_and_extended() {
    let told = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-real-ip", "1.1.1.1"),
        ("x-forwarded-proto", "http"),
    ];
    let lines = fields(true, &told);
    assert!(
        lines.contains(&"x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.7".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"x-real-ip: 2.2.2.2".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"x-forwarded-proto: http".to_owned()),
        "{lines:?}"
    );
    for name in [
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-proto",
        "x-request-id",
    ] {
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with(&format!("{name}:")))
                .count(),
            1,
            "{name} in {lines:?}"
        );
    }
}

#[test]
fn cookie_crumbs_become_one_line() {
    check(
        false,
        &[("cookie", "a=1"), ("cookie", "b=2")],
        &["cookie: a=1; b=2"],
    );
}

#[test]
fn a_loop_is_seen_after_ten_hops() {
    let with = |hops: usize| {
        let mut headers = HeaderMap::new();
        headers.insert(
            "cdn-loop",
            ["other; x", "tidegate"]
                .repeat(hops)
                .join(", ")
                .parse()
                .unwrap(),
        );
        is_loop(&headers)
    };
    assert!(!with(9));
    assert!(with(10));
}

#[test]
fn request_ids() {
    let ids = RequestIds::new(7);
    let mut headers = HeaderMap::new();
    headers.insert("x-request-id", "mine".parse().unwrap());
    assert_eq!(request_id(&headers, true, &ids), "mine");
    let (a, b) = (
        request_id(&headers, false, &ids),
        request_id(&headers, false, &ids),
    );
    assert_ne!(a, b);
    assert!(
        a.len() == 32 && a.as_bytes().iter().all(u8::is_ascii_hexdigit),
        "{a:?}"
    );
    headers.insert("x-request-id", "x".repeat(129).parse().unwrap());
    assert_eq!(request_id(&headers, true, &ids).len(), 32);
}

#[test]
fn trust_is_by_network_and_v4_is_v4_in_any_form() {
    let networks = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    for (addr, expected) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("11.0.0.1", false),
        ("::1", false),
    ] {
        assert_eq!(
            is_trusted(addr.parse().unwrap(), &networks),
            expected,
            "{addr}"
        );
    }
}

#[test]
fn what_may_not_stand_in_front_of_a_body_may_not_stand_behind_it() {
    let may = |name: &'static str| may_trail(&HeaderName::from_static(name));
    assert!(may("x-checksum") && may("grpc-status"));
    for name in [
        "ssl-client-verify",
        "ssl_client_verify",
        "x-request-id",
        "x_forwarded_for",
        "cdn-loop",
        "transfer_encoding",
    ] {
        assert!(!may(name), "{name}");
    }
}
