//! Fields: X1 to X8. Ours cannot be forged or removed, those of the connection do not travel.
//!
//! Where the catalogue leaves room:
//! - X4, "right hop": `X-Real-IP` is the last hop of `X-Forwarded-For` that is not a trusted proxy, without its port (as
//!   nginx's realip module and HAProxy users have it). What is no address ends the search; then it is the peer.
//! - X5 names X-Forwarded-For; what we write ourselves is also the framing, so its names are dropped in the same way.
//! - X7 has "duplicate Content-Length"; equal ones are B5, which allows them, so X7 only adds those that differ.
//! - X8, ESC in a field is malformed already (B18); what is left are quotes, escapes, bytes beyond ASCII and length.

use super::vector::{Check, Expect, Row, Vector, get, get_target, post, row};
use test_support::recorder::Act;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        x1(),
        x2(),
        x2_back(),
        x3(),
        x3_trusted(),
        x4(),
        x5(),
        x6(),
        x6_trusted(),
        x7(),
        x8(),
    ]
}

fn x1() -> Row {
    const OURS: &[Check] = &[
        Check::Host("a.test"),
        Check::Field("x-forwarded-for", "127.0.0.1"),
        Check::Field("x-forwarded-proto", "http"),
        Check::Field("x-forwarded-host", "a.test"),
        Check::Field("x-real-ip", "127.0.0.1"),
        Check::Field("authorization", "Basic YTpi"),
        Check::Field("cookie", "a=b"),
    ];
    let listing = |names: &str| {
        get(&format!(
            "Connection: {names}\r\nAuthorization: Basic YTpi\r\nCookie: a=b\r\n"
        ))
    };
    row("X1", "Connection names what is not the connection's")
        .passed(
            "all",
            listing("X-Forwarded-For, Host, Authorization, X-Auth-User, X-Real-IP, X-Forwarded-Proto, X-Forwarded-Host, Cookie"),
            OURS,
        )
        .passed("with keep-alive", listing("keep-alive, x-forwarded-for, authorization"), OURS)
        .passed("on two lines", listing("Authorization\r\nConnection: X-Forwarded-For, Cookie"), OURS)
        .passed(
            "framing",
            post("Connection: Content-Length, Content-Type\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n", b"hi"),
            &[Check::Body(b"hi"), Check::Field("content-type", "text/plain")],
        )
        .passed(
            "chunked framing",
            post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n"),
            &[Check::Body(b"hi")],
        )
}

/// Fields that belong to one connection.
const HOP_BY_HOP: &str = "Keep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X-T\r\nProxy-Connection: keep-alive\r\n\
                          Proxy-Authorization: Basic YTpi\r\nProxy-Authenticate: Basic\r\nProxy: evil\r\n\
                          HTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nX-Public: 2\r\n";

fn x2() -> Row {
    const STRIPPED: &[Check] = &[
        Check::NoField("connection"),
        Check::NoField("keep-alive"),
        Check::NoField("te"),
        Check::NoField("trailer"),
        Check::NoField("upgrade"),
        Check::NoField("proxy-connection"),
        Check::NoField("proxy-authorization"),
        Check::NoField("proxy-authenticate"),
        Check::NoField("proxy"),
        Check::NoField("http2-settings"),
        Check::NoField("x-private"),
        Check::Field("x-public", "2"),
    ];
    row("X2", "fields of the connection, upstream")
        .passed("not listed", get(HOP_BY_HOP), STRIPPED)
        .passed("Upgrade without Connection", get(&format!("Upgrade: foo\r\n{HOP_BY_HOP}")), STRIPPED)
        .passed(
            "in odd case, on several lines",
            get("cONNECTION: x-private\r\nConnection: X-PRIVATE , X-Other\r\nX-PRIVATE: 1\r\nx-other: 1\r\nX-Public: 2\r\n"),
            &[Check::NoField("x-private"), Check::NoField("x-other"), Check::Field("x-public", "2")],
        )
        .passed(
            "a list with empty elements and tabs",
            get("Connection: ,,\tX-Private\t,\r\nX-Private: 1\r\nX-Public: 2\r\n"),
            &[Check::NoField("x-private"), Check::Field("x-public", "2")],
        )
}

fn x2_back() -> Row {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{HOP_BY_HOP}\r\nok");
    row("X2b", "fields of the connection, downstream").upstream(
        "all",
        Act::reply(answer),
        Expect::Relayed(
            200,
            &[
                Check::AnswerNoField("keep-alive"),
                Check::AnswerNoField("te"),
                Check::AnswerNoField("trailer"),
                Check::AnswerNoField("proxy-connection"),
                Check::AnswerNoField("proxy-authenticate"),
                Check::AnswerNoField("http2-settings"),
                Check::AnswerNoField("x-private"),
                Check::AnswerField("x-public", "2"),
            ],
        ),
    )
}

const FORGED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n\
                      X-Forwarded-Port: 65432\r\nX-Forwarded-Scheme: https\r\nX-Scheme: https\r\nX-Real-IP: 6.6.6.6\r\n\
                      X-Original-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;host=evil.test\r\nX-Request-Id: 65432-forged\r\n";

fn x3() -> Row {
    const REPLACED: &[Check] = &[
        Check::Field("x-forwarded-for", "127.0.0.1"),
        Check::Field("x-forwarded-proto", "http"),
        Check::Field("x-forwarded-host", "a.test"),
        Check::Field("x-real-ip", "127.0.0.1"),
        Check::NotUpstream(b"6.6.6.6"),
        Check::NotUpstream(b"evil.test"),
        Check::NotUpstream(b"https"),
        // No port of a test is that high, and a random id all but never has it.
        Check::NotUpstream(b"65432"),
    ];
    row("X3", "forged fields of ours, from an untrusted peer")
        .passed("all", get(FORGED), REPLACED)
        .passed("twice", get(&format!("{FORGED}{FORGED}")), REPLACED)
        .passed("in lower case", get(&FORGED.to_lowercase()), REPLACED)
        .passed(
            "empty",
            get("X-Forwarded-For:\r\nX-Real-IP:\r\nX-Forwarded-Proto:\r\n"),
            REPLACED,
        )
}

const TRUSTED: &[&str] = &["--trusted-proxy=127.0.0.0/8"];

fn x3_trusted() -> Row {
    row("X3t", "fields of a trusted peer")
        .flags(TRUSTED)
        .passed(
            "appended",
            get(FORGED),
            &[
                Check::Field("x-forwarded-for", "6.6.6.6, 127.0.0.1"),
                Check::Field("x-forwarded-proto", "https"),
                Check::Field("x-forwarded-host", "evil.test"),
                Check::Field("x-forwarded-port", "65432"),
                Check::Field("x-request-id", "65432-forged"),
            ],
        )
        .passed(
            "several lines are one list",
            get("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"),
            &[Check::Field(
                "x-forwarded-for",
                "1.1.1.1, 2.2.2.2, 127.0.0.1",
            )],
        )
        .passed(
            "none yet",
            get(""),
            &[
                Check::Field("x-forwarded-for", "127.0.0.1"),
                Check::Field("x-real-ip", "127.0.0.1"),
            ],
        )
}

fn x4() -> Row {
    const BOUNDED: &[Check] = &[Check::Host("a.test"), Check::Targets(&["/v"])];
    let lines: String = (0..90)
        .map(|n| format!("X-Forwarded-For: 10.0.0.{n}\r\n"))
        .collect();
    let hops = |list: &str| get(&format!("X-Forwarded-For: {list}\r\n"));
    let real = |row: Row, name: &str, list: &str, checks: &'static [Check]| {
        row.passed(name, hops(list), checks)
    };
    let mut x4 = row("X4", "long and odd X-Forwarded-For from a trusted peer")
        .flags(TRUSTED)
        .passed("90 lines", get(&lines), BOUNDED)
        .passed("30 KiB", hops(&vec!["10.0.0.1"; 3_000].join(", ")), BOUNDED)
        .passed(
            "garbage",
            hops("unknown, \"_hidden\", <script>, ,,, ;"),
            BOUNDED,
        )
        .passed(
            "a zone id",
            hops("fe80::1%eth0, [fe80::1%25eth0]:80"),
            BOUNDED,
        )
        .passed(
            "bytes beyond ASCII",
            hops("\u{e9}, \u{ff11}.1.1.1"),
            BOUNDED,
        );
    const LAST: &[Check] = &[Check::Field("x-real-ip", "1.2.3.4")];
    const PEER: &[Check] = &[Check::Field("x-real-ip", "127.0.0.1")];
    x4 = real(
        x4,
        "the last hop that is not trusted",
        "6.6.6.6, 1.2.3.4",
        LAST,
    );
    x4 = real(
        x4,
        "trusted hops behind it",
        "6.6.6.6, 1.2.3.4, 127.0.0.9",
        LAST,
    );
    x4 = real(x4, "with a port", "6.6.6.6, 1.2.3.4:5678", LAST);
    x4 = real(x4, "mapped into IPv6", "6.6.6.6, ::ffff:1.2.3.4", LAST);
    x4 = real(x4, "garbage before it", "<script>, 1.2.3.4", LAST);
    real(x4, "garbage last", "6.6.6.6, unknown", PEER)
}

fn x5() -> Row {
    const DROPPED: &[Check] = &[
        Check::Field("x-forwarded-for", "127.0.0.1"),
        Check::NotUpstream(b"6.6.6.6"),
    ];
    let mut x5 = row("X5", "our names with underscores");
    for name in [
        "X_Forwarded_For",
        "X-Forwarded_For",
        "x_forwarded-for",
        "X_Real_IP",
        "X_Forwarded_Proto",
        "X_Forwarded_Host",
        "X_Request_Id",
        "X_Original_Forwarded_For",
        "X_Scheme",
    ] {
        x5 = x5.passed(name, get(&format!("{name}: 6.6.6.6\r\n")), DROPPED);
    }
    // A backend that folds names (CGI, WSGI) takes these for framing and host.
    for name in ["Content_Length", "Transfer_Encoding"] {
        x5 = x5.passed(name, get(&format!("{name}: 6.6.6.6\r\n")), DROPPED);
    }
    x5
}

fn request_id(value: &str) -> Vec<u8> {
    get(&format!("X-Request-Id: {value}\r\n"))
}

fn x6() -> Row {
    let replaced: &[Check] = &[Check::NotUpstream(b"forged")];
    row("X6", "request ids of an untrusted peer")
        .passed("short", request_id("forged"), replaced)
        .passed("10 KiB", request_id(&"forged".repeat(1_700)), replaced)
        .passed("a tab", request_id("for\tforged"), replaced)
        .passed("bytes beyond ASCII", request_id("forged\u{e9}"), replaced)
        .refused("a control", request_id("forged\x01"), &[400])
}

fn x6_trusted() -> Row {
    let replaced: &[Check] = &[Check::NotUpstream(b"forged")];
    row("X6t", "request ids of a trusted peer")
        .flags(TRUSTED)
        .passed(
            "short",
            request_id("kept-1"),
            &[Check::Field("x-request-id", "kept-1")],
        )
        .passed("10 KiB", request_id(&"forged".repeat(1_700)), replaced)
        .passed("a tab", request_id("for\tforged"), replaced)
        .passed("bytes beyond ASCII", request_id("forged\u{e9}"), replaced)
        .passed("a space", request_id("forged it"), replaced)
        .passed("empty", request_id(""), &[Check::Host("a.test")])
}

fn x7() -> Row {
    row("X7", "duplicates of single fields")
        .refused(
            "Authorization",
            get("Authorization: Basic YTpi\r\nAuthorization: Basic YTpj\r\n"),
            &[400],
        )
        .refused(
            "equal Authorization",
            get("Authorization: Basic YTpi\r\nAuthorization: Basic YTpi\r\n"),
            &[400],
        )
        .refused("Host", get("Host: a.test\r\n"), &[400])
        .refused(
            "Content-Length",
            post("Content-Length: 2\r\nContent-Length: 3\r\n", b"hi!"),
            &[400],
        )
        .scenario("a peer that is IPv4 mapped into IPv6", |stand| {
            Box::pin(super::logging::mapped_peer(stand))
        })
}

fn x8() -> Row {
    let agent = |value: &str| get(&format!("User-Agent: {value}\r\n"));
    row("X8", "what the access log is given")
        .passed(
            "quotes and backslashes",
            agent("a\"b\\c\\n\\u0000{\"x\":1}"),
            &[Check::Field("user-agent", "a\"b\\c\\n\\u0000{\"x\":1}")],
        )
        .passed(
            "bytes beyond ASCII",
            agent("\u{e9}\u{2028}\u{202e}"),
            &[Check::Targets(&["/v"])],
        )
        .special(
            "bytes that are not UTF-8",
            Vector::new(
                b"GET /v HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xff\xfe\x85\r\n\r\n".to_vec(),
                Expect::Passed(1, &[Check::Targets(&["/v"])]),
            ),
        )
        .passed(
            "8 KiB",
            agent(&"m".repeat(8 * 1024)),
            &[Check::Targets(&["/v"])],
        )
        .passed(
            "quotes in the query",
            get_target("/v?a=%22}%0a'"),
            &[Check::Targets(&["/v?a=%22}%0a'"])],
        )
        .refused("ESC", agent("\x1b[31m"), &[400])
        .refused(
            "a host of quotes",
            b"GET /v HTTP/1.1\r\nHost: \"}\\n\r\n\r\n".to_vec(),
            &[400],
        )
        .scenario("one line, truncated", |stand| {
            Box::pin(super::logging::one_short_line(stand))
        })
}
