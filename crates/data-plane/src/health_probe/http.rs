//! A probe over HTTP: one request, and the status of its answer. The body is not looked at.

use super::ask::Answer;
use super::http2;
use bytes::Bytes;
use http::{Request, Uri, Version, header};
use routing_table::policy::StatusRange;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Largest head of an answer in bytes, and most fields in it.
const MOST_HEAD: usize = 16 * 1024;
const MOST_FIELDS: usize = 128;
/// What is read of the body so that an endpoint can end it in peace, and for how long.
const MOST_BODY: u64 = 64 * 1024;
const BODY_TIME: Duration = Duration::from_millis(50);
/// Who asks.
const USER_AGENT: &str = "tidegate-probe";

/// The request.
pub(super) fn request(
    method: &str,
    path: &str,
    host: Option<&str>,
    addr: SocketAddr,
    scheme: &str,
) -> Result<Request<Bytes>, String> {
    let host = host.map_or_else(|| addr.to_string(), str::to_owned);
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(host)
        .path_and_query(path)
        .build();
    let request = uri.map(|uri| {
        Request::builder()
            .method(method)
            .uri(uri)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "*/*")
            .body(Bytes::new())
    });
    match request {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(error)) | Err(error) => Err(format!("it cannot be asked: {error}")),
    }
}

/// Asks over HTTP/1.1.
pub(super) async fn ask(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    request: &Request<Bytes>,
    expected: &[StatusRange],
) -> Answer {
    let failed = |error: std::io::Error| error.to_string();
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |host| host.as_str());
    let method = request.method();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await.map_err(failed)?;
    io.flush().await.map_err(failed)?;
    let mut seen = Vec::with_capacity(1024);
    let status = loop {
        if let Some((length, status)) = head_of(&seen)? {
            if status >= 200 {
                break status;
            }
            if status == 101 {
                return judge(status, expected);
            }
            // An interim answer; the real one follows.
            seen.drain(..length);
            continue;
        }
        if seen.len() >= MOST_HEAD {
            return Err(format!("the head of the answer has over {MOST_HEAD} bytes"));
        }
        let mut rest = (&mut io).take((MOST_HEAD - seen.len()) as u64);
        match rest.read_buf(&mut seen).await.map_err(failed)? {
            0 if seen.is_empty() => return Err("closed without an answer".to_owned()),
            0 => return Err("closed within the head of the answer".to_owned()),
            _ => {}
        }
    };
    let (mut body, mut nowhere) = (io.take(MOST_BODY), tokio::io::sink());
    let ended = tokio::io::copy(&mut body, &mut nowhere);
    let _ = timeout(BODY_TIME, ended).await;
    judge(status, expected)
}

/// Length and status of a head that is complete.
pub(super) fn head_of(bytes: &[u8]) -> Result<Option<(usize, u16)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(response.code.map(|code| (length, code))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(format!("the answer is not HTTP/1.1: {error}")),
    }
}

/// Asks over HTTP/2.
pub(super) async fn ask_http2(
    io: impl AsyncRead + AsyncWrite + Unpin,
    mut request: Request<Bytes>,
    expected: &[StatusRange],
) -> Answer {
    *request.version_mut() = Version::HTTP_2;
    let answer = http2::ask(io, request, 0).await?;
    judge(answer.status.as_u16(), expected)
}

/// Nothing expected is 200 to 399.
fn judge(status: u16, expected: &[StatusRange]) -> Answer {
    let usual = [StatusRange {
        first: 200,
        last: 399,
    }];
    let expected = match expected {
        [] => &usual,
        some => some,
    };
    let text = format!("status {status}");
    let is_in = |range: &StatusRange| (range.first..=range.last).contains(&status);
    match expected.iter().any(is_in) {
        true => Ok(text),
        false => Err(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: ([u8; 4], u16) = ([127, 0, 0, 1], 80);

    async fn answered(answer: &[u8], expected: &[StatusRange]) -> Answer {
        let (ours, mut theirs) = tokio::io::duplex(256 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let request = request("GET", "/health?x=1", None, ADDR.into(), "http").unwrap();
        let answer = ask(ours, &request, expected).await;
        let mut sent = String::new();
        theirs.read_to_string(&mut sent).await.unwrap();
        assert!(
            sent.starts_with("GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"),
            "{sent}"
        );
        answer
    }

    #[tokio::test]
    async fn the_status_decides() {
        let teapot = [StatusRange {
            first: 418,
            last: 418,
        }];
        for (answer, expected, good) in [
            ("HTTP/1.1 200 OK\r\n\r\nbody", &[][..], true),
            ("HTTP/1.0 204 x\r\n\r\n", &[], true),
            ("HTTP/1.1 399 x\r\n\r\n", &[], true),
            ("HTTP/1.1 400 x\r\n\r\n", &[], false),
            ("HTTP/1.1 200 OK\r\n\r\n", &teapot, false),
            ("HTTP/1.1 418 x\r\n\r\n", &teapot, true),
            (
                "HTTP/1.1 103 x\r\na: b\r\n\r\nHTTP/1.1 500 x\r\n\r\n",
                &[],
                false,
            ),
            ("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 x\r\n\r\n", &[], true),
            ("HTTP/1.1 101 x\r\n\r\n", &[], false),
            ("HTTP/1.1 200 OK\r\nfie", &[], false),
            ("", &[], false),
            ("SSH-2.0-OpenSSH\r\n", &[], false),
        ] {
            let got = answered(answer.as_bytes(), expected).await;
            assert_eq!(got.is_ok(), good, "{answer:?}: {got:?}");
        }
    }

    #[tokio::test]
    async fn an_endless_head_and_an_endless_body_are_bounded() {
        let head = [&b"HTTP/1.1 200 OK\r\na: "[..], &[b'x'; 100_000]].concat();
        assert!(answered(&head, &[]).await.unwrap_err().contains("over"));
        let interim = b"HTTP/1.1 100 x\r\n\r\n".repeat(3);
        assert!(answered(&interim, &[]).await.is_err());
        let body = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 200_000]].concat();
        assert!(answered(&body, &[]).await.is_ok());
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        for (method, path, host) in [
            ("GE T", "/", None),
            ("GET", "/ HTTP/1.1\r\nx: y", None),
            ("GET", "/", Some("a\r\nb: c")),
        ] {
            let made = request(method, path, host, ADDR.into(), "http");
            assert!(made.is_err(), "{method:?} {path:?} {host:?}");
        }
    }
}
