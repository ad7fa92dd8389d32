//! A relayed TCP connection, from accept to the end of both directions.
//!
//! One endpoint gets it; one that cannot be connected to passes it on to the next, since nothing was sent yet. The end of one
//! direction is passed on without ending the other, a reset ends both. A drain does not end it: it has until the deadline.

use super::flow::Flow;
use super::record::RelayRecord;
use super::target::RelayTarget;
use crate::connection::Accepted;
use crate::error::ProxyError;
use crate::forward::PASSED_OVER;
use crate::h1::deadline::{Deadline, within};
use crate::listener::OpenListener;
use crate::proxy_header;
use crate::proxy_protocol;
use crate::socket;
use crate::wishes::Wishes;
use crate::worker::Worker;
use socket2::SockRef;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Most endpoints that are tried for one connection.
const MAX_ATTEMPTS: u32 = 10;
/// How often a connection that is to end with its endpoint looks for it.
const LOOK: Duration = Duration::from_secs(1);

/// Relays a connection of a TCP listener.
pub(crate) async fn serve(accepted: Accepted, proxied: Option<Box<(OpenListener, SocketAddr)>>) {
    let Some(accepted) = proxy_protocol::named(accepted, proxied).await else {
        return;
    };
    let Accepted {
        worker,
        client,
        entered: _entered,
        stream,
    } = accepted;
    let target = worker
        .reader
        .read(|table| table.relays(&client.listener)?.all().cloned());
    // Without one the listener has just gone, and the connection goes with it.
    if let Some(target) = target {
        let record = RelayRecord::new(&worker, &client, &target, "TCP");
        relay(record, stream, Vec::new()).await;
    }
}

/// Relays a connection of which `begun` was read already.
pub(super) async fn relay(mut record: RelayRecord, client: TcpStream, begun: Vec<u8>) {
    let (worker, target) = (Rc::clone(&record.worker), Arc::clone(&record.target));
    worker.stats.relays.add(1);
    if !target.lets_in(&record.client) {
        worker.stats.relays_forbidden.add(1);
        record.flag = ProxyError::Forbidden.flag();
        return;
    }
    let Some(_admitted) = target.admit() else {
        worker.stats.relays_shed.add(1);
        record.flag = "limit";
        return;
    };
    let Some(_slot) = worker.endpoint_slot(&record.client) else {
        record.flag = ProxyError::Overloaded.flag();
        return;
    };
    let _open = Open::new(&worker);
    let Some(upstream) = connect(&mut record).await else {
        worker.stats.relays_unconnected.add(1);
        return;
    };
    let mut first = Vec::new();
    if let Some(version) = target.relay.proxy_header {
        proxy_header::write(&mut first, version, record.client.ends());
    }
    let ours = first.len() as u64;
    first.extend_from_slice(&begun);
    drop(begun);
    let mut directions = Directions {
        up: Flow::beginning_with(first),
        down: Flow::default(),
        idle: Deadline::default(),
    };
    // Noted when it changes, since a stop drops this future wherever it is.
    let ended = tokio::select! {
        ended = directions.run(&mut record, &client, &upstream, ours) => ended,
        () = endpoint_gone(&target, upstream.peer_addr().ok()) => Ended::EndpointGone,
    };
    record.flag = match ended {
        Ended::Both => "",
        Ended::Idle => {
            worker.stats.relays_idle.add(1);
            "idle"
        }
        Ended::Reset => {
            worker.stats.relays_reset.add(1);
            // The other side should see the same, not a proper end.
            for socket in [&client, &upstream] {
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            "reset"
        }
        Ended::EndpointGone => {
            worker.stats.relays_abandoned.add(1);
            "endpoint_gone"
        }
    };
}

/// Connects to an endpoint, another one while some refuse.
async fn connect(record: &mut RelayRecord) -> Option<TcpStream> {
    let (worker, target) = (Rc::clone(&record.worker), Arc::clone(&record.target));
    let mut tried: Vec<SocketAddr> = Vec::new();
    let wishes = Wishes::of_client(&target.upstream.policy(), record.client.addr.ip());
    record.flag = "no_endpoint";
    while record.attempts < MAX_ATTEMPTS {
        let ask = wishes.ask(&tried, u32::MAX, &worker);
        let endpoint = match target.upstream.pick(&ask) {
            Ok(entered) => {
                let entered = record.entered.insert(entered);
                entered.begin(&worker, None);
                entered.addr()
            }
            Err(error) => {
                record.flag = error.flag();
                return None;
            }
        };
        if tried.contains(&endpoint) {
            return None;
        }
        if record.attempts > 0 {
            worker.stats.retries.add(1);
        }
        record.attempts += 1;
        record.upstream = Some(endpoint);
        if target.leads_back(endpoint) {
            record.flag = "loop";
            tried.push(endpoint);
            continue;
        }
        match within(target.relay.limits.connect, TcpStream::connect(endpoint)).await {
            Some(Ok(stream)) => {
                worker.stats.upstream_connects.add(1);
                let _ = socket::tune((&stream).into());
                record.flag = "stopped";
                if let Some(entered) = &mut record.entered {
                    entered.connected();
                }
                return Some(stream);
            }
            failed => {
                worker.stats.upstream_connect_errors.add(1);
                let error = match failed {
                    Some(_) => ProxyError::Connect,
                    None => ProxyError::ConnectTimeout,
                };
                record.flag = error.flag();
                if let Some(entered) = &mut record.entered {
                    entered.failed(error, false);
                    entered.pass_over(PASSED_OVER, worker.now());
                }
                tracing::debug!(%endpoint, flag = record.flag, "relay tries the next endpoint");
                tried.push(endpoint);
            }
        }
    }
    None
}

/// Why a relay ended.
enum Ended {
    /// Both directions did.
    Both,
    /// No byte either way for too long.
    Idle,
    /// An error of a socket.
    Reset,
    /// Its endpoint is no endpoint any more.
    EndpointGone,
}

/// Both directions and their common patience.
struct Directions {
    up: Flow,
    down: Flow,
    idle: Deadline,
}

impl Directions {
    /// Moves bytes until the end. `ours` are the first bytes up, which the client did not send.
    async fn run(
        &mut self,
        record: &mut RelayRecord,
        client: &TcpStream,
        upstream: &TcpStream,
        ours: u64,
    ) -> Ended {
        let worker = Rc::clone(&record.worker);
        let patience = record.target.relay.limits.idle;
        self.idle.set(Instant::now() + patience);
        poll_fn(|cx| {
            let mut moved = false;
            let buffers = &worker.buffers;
            let up = self.up.poll(cx, client, upstream, buffers, &mut moved);
            let down = self.down.poll(cx, upstream, client, buffers, &mut moved);
            if moved {
                let received = self.up.bytes.saturating_sub(ours);
                worker.stats.relays_received.add(received - record.received);
                worker.stats.relays_sent.add(self.down.bytes - record.sent);
                (record.received, record.sent) = (received, self.down.bytes);
                self.idle.set(Instant::now() + patience);
            }
            match (up, down) {
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                    tracing::debug!(client = record.client.addr_text, %error, "relay ended");
                    return Poll::Ready(Ended::Reset);
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Both),
                _ => {}
            }
            self.idle.poll(cx).map(|()| Ended::Idle)
        })
        .await
    }
}

/// Resolves when the endpoint is none any more, if connections are to end with it.
async fn endpoint_gone(target: &RelayTarget, endpoint: Option<SocketAddr>) {
    if !target.relay.limits.close_with_endpoint {
        return std::future::pending().await;
    }
    loop {
        sleep(LOOK).await;
        let endpoints = target.upstream.endpoints();
        if !endpoints
            .all()
            .iter()
            .any(|one| Some(one.addr()) == endpoint)
        {
            return;
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.stats.relays_open.add(1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.relays_open.sub(1);
    }
}
