//! Lines are JSON whatever a client sends, and a blocked writer costs lines only.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use std::sync::LazyLock;

static ROUTE: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    RouteLine {
        namespace: "shop",
        ingress: "web",
        rule: "rules[0].paths[0]",
        service: "api",
    }
    .format()
});

fn line<'a>(path: &'a str, user_agent: &'a [u8]) -> Line<'a> {
    Line {
        client: "192.0.2.7",
        request_id: b"id",
        method: "GET",
        scheme: "http",
        host: b"shop.test",
        path,
        protocol: "HTTP/1.1",
        status: 200,
        request_bytes: 0,
        response_bytes: 5,
        duration: Duration::from_micros(1_000_250),
        user_agent,
        referer: b"",
        route: &ROUTE,
        route_name: Some(("shop", "web")),
        flag: "",
        attempts: 1,
        upstream: Some(([10, 0, 0, 1], 8080).into()),
        upstream_duration: Some(Duration::from_millis(3)),
    }
}

fn formatted(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    format_line(&mut out, b"2026-01-31T12:00:00.123Z", line);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line() {
    assert_eq!(
        formatted(&line("/a?b=c", b"curl/8")),
        concat!(
            r#"{"time":"2026-01-31T12:00:00.123Z","client":"192.0.2.7","request_id":"id","method":"GET","scheme":"http","#,
            r#""host":"shop.test","path":"/a?b=c","protocol":"HTTP/1.1","status":200,"request_bytes":0,"response_bytes":5,"#,
            r#""duration":1.000250,"user_agent":"curl/8","namespace":"shop","ingress":"web","rule":"rules[0].paths[0]","#,
            r#""service":"api","upstream":"10.0.0.1:8080","attempts":1,"upstream_duration":0.003000}"#,
            "\n"
        )
    );
}

fn as_text(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    text_line::request(&mut out, b"2026-01-31T12:00:00.123Z", line);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_of_text() {
    assert_eq!(
        as_text(&line("/a?b=c", b"curl/8")),
        concat!(
            r#"192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 5 "-" "curl/8" scheme=http host="shop.test" request_bytes=0 "#,
            r#"duration=1.000250 route="shop/web" upstream=10.0.0.1:8080 attempts=1 upstream_duration=0.003000 id="id""#,
            "\n"
        )
    );
    let refused = Line {
        status: 404,
        route_name: None,
        upstream: None,
        upstream_duration: None,
        flag: "no_route",
        ..line("/", b"")
    };
    assert!(as_text(&refused).ends_with(" duration=1.000250 id=\"id\" flag=no_route\n"));
    let relayed = RelayLine {
        client: "192.0.2.7",
        listener: "tcp-5432",
        protocol: "TLS",
        server_name: Some("db.test\n"),
        received: 1,
        sent: 2,
        duration: Duration::from_secs(3),
        namespace: "shop",
        service: "db",
        upstream: None,
        attempts: 0,
        flag: "connect_failed",
    };
    let mut out = Vec::new();
    text_line::relay(&mut out, b"2026-12-01T00:00:00.000Z", &relayed);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "192.0.2.7 - - [01/Dec/2026:00:00:00 +0000] \"TLS tcp-5432 db.test\\u000a\" received_bytes=1 sent_bytes=2 duration=3.000000 service=\"shop/db\" \
         flag=connect_failed\n"
    );
}

#[test]
fn no_byte_of_a_client_breaks_a_line_of_text() {
    let hostile: Vec<u8> = (0..=255).collect();
    let line = Line {
        host: &hostile,
        referer: &hostile,
        request_id: &hostile,
        ..line("/\"x\u{1b}[2J", &hostile)
    };
    let shown = as_text(&line);
    assert_eq!(shown.matches('\n').count(), 1);
    let control = |letter: char| letter.is_control();
    assert!(!shown.trim_end_matches('\n').contains(control), "{shown:?}");
    assert!(shown.contains(r#"/\"x\u001b[2J"#), "{shown:?}");
}

#[test]
fn addresses() {
    for text in [
        "0.0.0.0:0",
        "10.0.200.1:8080",
        "255.255.255.255:65535",
        "[::1]:80",
        "[2001:db8::1]:443",
    ] {
        let mut out = Vec::new();
        address(&mut out, text.parse().unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

#[test]
fn hostile_bytes_are_escaped_and_cut() {
    let hostile = b"\x1b[31m\"quote\" back\\slash \xff\xfe \xc3\xa9 \x7f\x00\n{\"status\":500}";
    let shown = formatted(&line("/", hostile));
    assert_eq!(shown.matches('\n').count(), 1);
    assert!(shown.trim_end().bytes().all(|b| b >= 0x20), "{shown:?}");
    let parsed: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(parsed["status"], 200);
    assert!(
        parsed["user_agent"]
            .as_str()
            .unwrap()
            .contains("\"quote\" back\\slash")
    );
    let long = vec![b'x'; 8192];
    assert!(formatted(&line("/", &long)).len() < MAX_VALUE + 600);
}

#[test]
fn the_clock_shows_utc_with_milliseconds() {
    let clock = Clock::default();
    let text = String::from_utf8(clock.now().to_vec()).unwrap();
    let stamp: jiff::Timestamp = text.parse().unwrap();
    assert!(
        (jiff::Timestamp::now().as_second() - stamp.as_second()).abs() <= 2,
        "{text}"
    );
}

#[test]
fn a_blocked_writer_drops_lines_and_counts_them() {
    /// Blocks until its sender is dropped.
    struct Blocked(std::sync::mpsc::Receiver<()>);
    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (release, blocked) = std::sync::mpsc::sync_channel::<()>(1);
    let (sink, thread) = AccessLogSink::start(Blocked(blocked)).unwrap();
    let stats = Arc::new(WorkerStats::default());
    let log = AccessLog::new(Some(sink), Arc::clone(&stats));
    for _ in 0..QUEUE + 10 {
        log.write(&line("/", b"x"));
        log.flush();
    }
    assert!(stats.log_dropped.get() >= 8, "{}", stats.log_dropped.get());
    drop(release);
    drop(log);
    thread.join().unwrap();
}
