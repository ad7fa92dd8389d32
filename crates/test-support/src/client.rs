//! A plain HTTP/1.1 client on one connection. It never retries, so what fails is seen.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longest time for one request of a test.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the server closes the connection after it.
    pub fn closes(&self) -> bool {
        self.headers
            .get("connection")
            .is_some_and(|value| value == "close")
    }
}

/// One connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused or not made in time.
    pub async fn connect(addr: SocketAddr) -> Result<Self, String> {
        let connect = tokio::time::timeout(TIMEOUT, TcpStream::connect(addr)).await;
        let stream = connect
            .map_err(|_| "connect timed out".to_owned())?
            .map_err(|error| format!("connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        Self::over(stream).await
    }

    /// Speaks on a stream that is connected already.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, String> {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let exchange = async {
            self.sender
                .ready()
                .await
                .map_err(|error| format!("not ready: {error}"))?;
            let response = self
                .sender
                .send_request(request)
                .await
                .map_err(|error| format!("send: {error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| format!("body: {error:?}"))?
                .to_bytes();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| "request timed out".to_owned())?
    }

    /// GETs a path of a host.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer, String> {
        self.send(request(Method::GET, host, path, Bytes::new()))
            .await
    }
}

/// A request with a host.
pub fn request(method: Method, host: &str, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .body(Full::new(body))
        .unwrap()
}

/// GETs a path of a host on a connection of its own.
///
/// # Errors
/// When there is no whole answer.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
    Client::connect(addr).await?.get(host, path).await
}

/// GETs again and again, every few milliseconds, until the answer is as wanted; panics with the last one after 30 s.
pub async fn wait_for(
    addr: SocketAddr,
    host: &str,
    path: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let mut last = Err("nothing tried".to_owned());
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        last = get(addr, host, path).await;
        if let Ok(answer) = &last
            && wanted(answer)
        {
            return answer.clone();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{host}{path} at {addr} did not become what was waited for; last: {last:?}");
}

/// GETs over HTTP/1.1 on a stream that is connected already; gives the body.
pub async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Bytes {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender
        .send_request(request(Method::GET, host, path, Bytes::new()))
        .await
        .unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

/// GETs over HTTP/2 on a stream that is connected already; gives the body.
pub async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Bytes {
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .uri(format!("https://{host}{path}"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

/// GETs `/` of these hosts, one after the other, on one HTTP/2 connection; gives their statuses.
pub async fn statuses_over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    hosts: &[&str],
) -> Vec<u16> {
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut statuses = Vec::new();
    for host in hosts {
        let request = Request::builder()
            .uri(format!("https://{host}/"))
            .body(Full::new(Bytes::new()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        statuses.push(response.status().as_u16());
        response.into_body().collect().await.unwrap();
    }
    statuses
}
