//! Connections that begin with a header of the PROXY protocol: who may send one, and reading it off the socket.
//!
//! The address it names is the client's from then on, for logs, fields and trust: a proxy of ours may pass on the
//! connection of another one, whose `X-Forwarded-For` counts if *its* address is trusted.
//!
//! Not a byte more than the header is taken, so whatever comes next reads the socket as if there had been none.

use crate::client::ClientConnection;
use crate::connection::Accepted;
use crate::forwarded_headers::is_trusted;
use crate::listener::OpenListener;
use crate::proxy_header::{Ends, ProxyHeader, ProxyHeaderError, parse};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes looked at in one go; nearly every header is shorter.
const PEEK: usize = 256;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The bytes are none.
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    /// The connection ended first.
    #[error("connection ended before its PROXY header did: {0}")]
    Io(#[from] io::Error),
}

/// The connection with the client that its header names, in place of the proxy that it came from. `proxied` is its listener
/// and the proxy's address, where connections of the listener begin with a header. `None`: it is to be closed, and was
/// counted.
pub(crate) async fn named(
    accepted: Accepted,
    proxied: Option<Box<(OpenListener, SocketAddr)>>,
) -> Option<Accepted> {
    match proxied {
        None => Some(accepted),
        // Few connections are, and it takes room.
        Some(proxied) => Box::pin(read_name(accepted, &proxied.0, proxied.1)).await,
    }
}

async fn read_name(
    mut accepted: Accepted,
    open: &OpenListener,
    peer: SocketAddr,
) -> Option<Accepted> {
    let Accepted {
        worker,
        client,
        stream,
        ..
    } = &mut accepted;
    let settings = &worker.settings;
    if !is_trusted(peer.ip(), &settings.proxy_header_from) {
        worker.stats.proxy_untrusted.add(1);
        tracing::debug!(listener = %open.id, %peer, "may not send a PROXY header");
        return None;
    }
    let drained = poll_fn(|cx| match client.is_draining(cx) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    let received = tokio::select! {
        received = timeout(settings.client_timeouts.first_byte, receive(stream)) => received,
        () = drained => return None,
    };
    let received =
        received.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
    match received {
        Ok(None) => Some(accepted),
        Ok(Some(ends)) => {
            let client = ClientConnection::new(
                open.id.clone(),
                ends.source,
                Some(ends.destination),
                ends.destination.port(),
                open.tls,
                &settings.trusted_proxies,
            );
            let entered = worker.enter(&client);
            Some(Accepted {
                client,
                entered,
                ..accepted
            })
        }
        Err(error) => {
            worker.stats.proxy_invalid.add(1);
            tracing::debug!(listener = %open.id, %peer, %error, "closed");
            None
        }
    }
}

/// Reads the header; `None` where the socket's own ends hold. How long that may take is the caller's business.
///
/// # Errors
/// See [`Refusal`].
async fn receive(stream: &mut TcpStream) -> Result<Option<Ends>, Refusal> {
    let mut seen = Vec::with_capacity(PEEK);
    loop {
        let before = seen.len();
        seen.resize(before + PEEK, 0);
        let peeked = stream.peek(&mut seen[before..]).await?;
        if peeked == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        seen.truncate(before + peeked);
        // `length` is more than what was there `before`, which was no whole header.
        // Taken from the socket: all of it while the header is not whole, so that the next look waits for more.
        let (take, header) = match parse(&seen)? {
            Some(ProxyHeader { ends, length }) => (length - before, Some(ends)),
            None => (peeked, None),
        };
        stream.read_exact(&mut seen[before..before + take]).await?;
        if let Some(ends) = header {
            return Ok(ends);
        }
    }
}
