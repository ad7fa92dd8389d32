//! A backend that speaks HTTP/2 without TLS and sends every body back as it comes, trailers too, as a streaming call does. To
//! a GET of `/endless` it sends a body without end.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpListener;

/// A body that is there as soon as there is room for it.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16_384])))))
    }
}

/// Starts one on a port of its own on 127.0.0.1; it ends with the runtime.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(async |request: Request<Incoming>| {
                let (parts, body) = request.into_parts();
                let mut response = Response::new(match parts.uri.path() {
                    "/endless" => Either::Right(Endless),
                    _ => Either::Left(body),
                });
                if let Some(kind) = parts.headers.get("content-type") {
                    response.headers_mut().insert("content-type", kind.clone());
                }
                Ok::<_, Infallible>(response)
            });
            let builder = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    addr
}
