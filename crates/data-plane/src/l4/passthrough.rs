//! TLS that is not ours to do: connections for some server names are passed on as they are.
//!
//! What was read to find the name goes with the connection, either to the endpoint or to our own handshake.

use super::client_hello::{HelloReader, Progress};
use super::record::RelayRecord;
use super::target::{RelayTarget, RelayTargets};
use super::tcp;
use crate::connection::Accepted;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes asked for in one read.
const READ: usize = 4096;

/// Relays the connection if its server name is passed on. Else it is given back, with what was read of it; `None`: it is
/// relayed, or at its end.
pub(crate) async fn relay_or_return(accepted: Accepted) -> Option<(Accepted, Vec<u8>)> {
    let Accepted { worker, client, .. } = &accepted;
    let passes_on = worker.reader.read(|table| {
        let relays = table.relays(&client.listener);
        relays.is_some_and(RelayTargets::has_names)
    });
    if !passes_on {
        return Some((accepted, Vec::new()));
    }
    // A box, since few listeners do.
    Box::pin(look(accepted)).await
}

async fn look(mut accepted: Accepted) -> Option<(Accepted, Vec<u8>)> {
    let limit = accepted.worker.settings.client_timeouts.handshake;
    let (name, begun) = match timeout(limit, read_name(&mut accepted.stream)).await {
        Ok(Ok(read)) => read,
        failed => {
            let worker = &accepted.worker;
            worker.stats.passthrough_silent.add(1);
            let client = &accepted.client.addr_text;
            tracing::debug!(client, timeout = failed.is_err(), "no ClientHello");
            return None;
        }
    };
    let Some((name, target)) = name.and_then(|name| find(&accepted, name)) else {
        return Some((accepted, begun));
    };
    // A task of its own: this one has room for all of HTTP.
    tokio::task::spawn_local(async move {
        let Accepted {
            worker,
            client,
            entered: _entered,
            stream,
        } = accepted;
        let mut record = RelayRecord::new(&worker, &client, &target, "TLS");
        record.server_name = Some(name);
        tcp::relay(record, stream, begun).await;
    });
    None
}

fn find(accepted: &Accepted, name: Box<str>) -> Option<(Box<str>, Arc<RelayTarget>)> {
    let listener = &accepted.client.listener;
    let reader = &accepted.worker.reader;
    let target = reader.read(|table| table.relays(listener)?.by_name(&name).cloned())?;
    Some((name, target))
}

/// Reads until the name is known, or that there is none; gives everything that was read.
async fn read_name(stream: &mut TcpStream) -> io::Result<(Option<Box<str>>, Vec<u8>)> {
    let mut reader = HelloReader::default();
    loop {
        let buffer = reader.buffer();
        buffer.reserve(READ);
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match reader.progress() {
            Progress::More => {}
            Progress::Hello(name) => return Ok((name, reader.into_seen())),
            Progress::Other => return Ok((None, reader.into_seen())),
        }
    }
}
