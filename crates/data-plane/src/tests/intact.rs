//! What passes through is what was sent, in both directions, and as soon as it is there.

use super::raw::{Act, RawBackend, exchange};
use super::{host, serve};
use bytes::Bytes;
use http::{Method, header};
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Client, get, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn every_method_target_field_and_body_arrives() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    let own = Method::from_bytes(b"PURGE").unwrap();
    for method in [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        own,
    ] {
        for target in ["/", "/p/q;x=1/", "/p?k=1&k=2&e=%2f&empty=", "/%C3%A9?%"] {
            let body = match method {
                Method::GET | Method::HEAD | Method::OPTIONS => Bytes::new(),
                _ => Bytes::from((0..=255).cycle().take(5000).collect::<Vec<u8>>()),
            };
            let mut asked = request(method.clone(), "a.test", target, body.clone());
            for value in ["one", "two"] {
                asked
                    .headers_mut()
                    .append("x-twice", value.parse().unwrap());
            }
            asked
                .headers_mut()
                .insert("if-none-match", "\"tag\"".parse().unwrap());
            let answer = client.send(asked).await.unwrap();
            let seen = backend.last().unwrap();
            assert_eq!(answer.status, 200, "{method} {target}");
            assert_eq!(
                (seen.method.as_str(), seen.target.as_str()),
                (method.as_str(), target)
            );
            assert!(seen.body == body, "{method} {target}");
            let twice: Vec<_> = seen.headers.get_all("x-twice").iter().collect();
            assert_eq!(twice, ["one", "two"], "{method} {target}");
            assert_eq!(seen.headers["if-none-match"], "\"tag\"");
            assert_eq!(seen.headers[header::HOST], "a.test");
        }
    }
}

/// A redirect is an answer as any other: it is not followed.
#[tokio::test]
async fn statuses_fields_and_bodies_come_back_and_redirects_are_not_followed() {
    for status in [
        200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 409, 418, 429,
        500, 501, 502, 503, 504,
    ] {
        let body = if matches!(status, 204 | 304) {
            ""
        } else {
            "the body"
        };
        let length = match status {
            204 => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let reply = format!(
            "HTTP/1.1 {status} Some Reason\r\n{length}Location: http://elsewhere.test/x?y=1#z\r\nSet-Cookie: a=1\r\n\
             Set-Cookie: b=2; Path=/\r\nETag: \"tag\"\r\nX-Own: some value\r\n\r\n{body}"
        );
        let backend = RawBackend::start(&[Act::Reply(reply.leak())]).await;
        let proxy = serve(&[host("a.test", &[backend.addr])]);
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (status, body)
        );
        let cookies: Vec<_> = answer.headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1", "b=2; Path=/"], "{status}");
        for (name, value) in [
            ("location", "http://elsewhere.test/x?y=1#z"),
            ("etag", "\"tag\""),
            ("x-own", "some value"),
        ] {
            assert_eq!(answer.headers[name], value, "{status}");
        }
        assert_eq!(backend.requests(), 1, "{status}");
    }
}

#[tokio::test]
async fn trailers_come_back() {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\n\
                 Server: engine\r\nAlt-Svc: engine\r\nx-sum: 42\r\n\r\n";
    let backend = RawBackend::start(&[Act::Reply(reply)]).await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let asked = b"GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
    let answer = exchange(proxy.addr, asked).await;
    assert!(
        answer.ends_with("2\r\nok\r\n0\r\nx-sum: 42\r\n\r\n"),
        "{answer}"
    );
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(end) {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "closed after {all:?}");
            all.extend_from_slice(&piece[..count]);
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), reading).await;
    assert!(done.is_ok(), "{end} did not come");
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn the_first_bytes_go_on_before_the_last_are_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = serve(&[host("a.test", &[listener.local_addr().unwrap()])]);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\nfirst ")
        .await
        .unwrap();
    let (mut backend, _) = listener.accept().await.unwrap();
    read_until(&mut backend, "first ").await;
    client.write_all(b"second").await.unwrap();
    read_until(&mut backend, "second").await;
    backend
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nthird ")
        .await
        .unwrap();
    read_until(&mut client, "third ").await;
    backend.write_all(b"fourth").await.unwrap();
    read_until(&mut client, "fourth").await;
}
