//! Accepts connections and speaks HTTP on them.

use crate::client::ClientConnection;
use crate::client_io::{ClientIo, ClientStream};
use crate::h1::{self, request::MAX_HEAD};
use crate::handshake;
use crate::l4;
use crate::listener::{OpenListener, Speaks};
use crate::proxy::proxy;
use crate::proxy_protocol;
use crate::publish::Snapshot;
use crate::request_body::ClientBody;
use crate::stream_stall::Streams;
use crate::worker::{Entered, Worker};
use bytes::BytesMut;
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// hyper ends a whole connection of HTTP/2, without a word, for a CONNECT with a `Content-Length`, though it has only reset that
/// stream: all others are where they were, and go on when it is polled again. That often in a row, which also ends a loop that a
/// version of hyper might make of it.
const REFUSED_AT_ONCE: usize = 1_000;

/// A connection that was accepted, on its way to whoever serves it.
pub(crate) struct Accepted {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Rc<ClientConnection>,
    pub(crate) entered: Entered,
    pub(crate) stream: TcpStream,
}

/// Accepts until `stopped` resolves, then takes what the kernel has already accepted for us and ends.
pub(crate) async fn accept_loop(
    worker: Rc<Worker>,
    open: OpenListener,
    listener: TcpListener,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut backoff = Backoff::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = Backoff::default();
                start(&worker, &open, stream, peer);
            }
            Err(error) => backoff.wait(&error).await,
        }
    }
    // Closing a socket resets what waits in its queue.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        start(&worker, &open, stream, peer);
    }
}

/// Waits longer and longer while the process is out of file descriptors.
#[derive(Default)]
struct Backoff(Duration);

impl Backoff {
    async fn wait(&mut self, error: &io::Error) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            return;
        }
        if self.0.is_zero() {
            tracing::warn!(%error, "accept failed");
        }
        self.0 = (self.0 * 2).clamp(Duration::from_millis(5), Duration::from_secs(1));
        tokio::time::sleep(self.0).await;
    }
}

fn start(worker: &Rc<Worker>, open: &OpenListener, stream: TcpStream, peer: SocketAddr) {
    worker.stats.accepted.add(1);
    if !worker.has_room() {
        worker.stats.shed.add(1);
        return;
    }
    let trusted = &worker.settings.trusted_proxies;
    // Only a PROXY header of our own will name it; a connection without one saves the system call.
    let destination = worker
        .reader
        .read(Snapshot::sends_proxy_headers)
        .then(|| stream.local_addr().ok())
        .flatten();
    let (id, port) = (open.id.clone(), open.addr.port());
    let tls = open.tls;
    let client = ClientConnection::new(id, peer, destination, port, tls, trusted);
    let entered = worker.enter(&client);
    let accepted = Accepted {
        worker: Rc::clone(worker),
        client,
        entered,
        stream,
    };
    let proxied = open.proxy_header.then(|| Box::new((open.clone(), peer)));
    if open.speaks == Speaks::Tcp {
        // A task of its own kind: one for HTTP has room for all of HTTP.
        tokio::task::spawn_local(l4::tcp::serve(accepted, proxied));
        return;
    }
    tokio::task::spawn_local(async move {
        let Some(accepted) = proxy_protocol::named(accepted, proxied).await else {
            return;
        };
        let (accepted, begun) = match tls {
            true => match l4::passthrough::relay_or_return(accepted).await {
                Some(returned) => returned,
                None => return,
            },
            false => (accepted, Vec::new()),
        };
        let Accepted {
            worker,
            client,
            entered: _entered,
            stream,
        } = accepted;
        if !tls {
            let io = client_io(&worker, &client, ClientStream::Plain(stream));
            return http1(&worker, &client, io).await;
        }
        // A box, so that connections do not hold the space of a handshake.
        let handshake = Box::pin(handshake::accept(&worker, &client, stream, begun));
        let Some(stream) = handshake.await else {
            return;
        };
        let http2_chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = client_io(&worker, &client, ClientStream::Tls(Box::new(stream)));
        if http2_chosen {
            Box::pin(http2(&worker, &client, io.into_http2(BytesMut::new()))).await;
        } else {
            http1(&worker, &client, io).await;
        }
    });
}

fn client_io(worker: &Worker, client: &Rc<ClientConnection>, stream: ClientStream) -> ClientIo {
    ClientIo::new(stream, Rc::clone(client), worker.settings.client_timeouts)
}

async fn http1(worker: &Rc<Worker>, client: &Rc<ClientConnection>, io: ClientIo) {
    // HTTP/2 without TLS begins by prior knowledge, and only where there is no TLS to say so (RFC 9113 section 3.3).
    let may_be_http2 = client.scheme == "http";
    if let Some((io, begun)) = h1::server::serve(worker, client, io, may_be_http2).await {
        // A box, because every connection would hold the space of this otherwise.
        Box::pin(http2(worker, client, io.into_http2(begun))).await;
    }
}

async fn http2(worker: &Rc<Worker>, client: &Rc<ClientConnection>, io: ClientIo) {
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, client) = (Rc::clone(worker), Rc::clone(client));
        async move {
            let unanswered = client.streams.begin();
            let (parts, body) = request.into_parts();
            let answering = proxy(worker, Rc::clone(&client), parts, ClientBody::Http2(body));
            let mut answering = pin!(answering);
            let answer = poll_fn(|cx| {
                let polled = answering.as_mut().poll(cx);
                client.streams.asked(&polled);
                polled
            });
            let answer = answer.await;
            unanswered.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http2::Builder::new(Streams {
        client: Rc::clone(client),
        stall: worker.settings.client_timeouts.write_stall,
    });
    builder
        .max_concurrent_streams(100)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .enable_connect_protocol();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut told = false;
    let ended = poll_fn(|cx| {
        if !told && client.is_draining(cx) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        for _ in 0..REFUSED_AT_ONCE {
            match connection.as_mut().poll(cx) {
                Poll::Ready(Ok(())) if !client.is_over.get() => {}
                polled => return polled,
            }
        }
        Poll::Ready(Ok(()))
    });
    ended_with(worker, client, ended.await);
}

fn ended_with(worker: &Worker, client: &ClientConnection, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        if error.is_parse() {
            worker.stats.unreadable.add(1);
        }
        tracing::debug!(client = client.addr_text, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accepting_is_tried_again_after_longer_and_longer() {
        let mut backoff = Backoff::default();
        let full = io::Error::from_raw_os_error(24);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let start = tokio::time::Instant::now();
            backoff.wait(&full).await;
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        // Who was gone before it was accepted is no reason to wait.
        let start = tokio::time::Instant::now();
        let gone = io::Error::from(io::ErrorKind::ConnectionAborted);
        backoff.wait(&gone).await;
        assert_eq!(start.elapsed().as_millis(), 0);
    }
}
