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
