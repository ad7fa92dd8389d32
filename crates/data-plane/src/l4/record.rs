//! What happened to one relayed connection or session: filled in along its way, logged when it ends, however it ends.

use super::target::RelayTarget;
use crate::access_log::RelayLine;
use crate::client::ClientConnection;
use crate::upstream::Entered;
use crate::worker::Worker;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// One connection or session. Dropping it is what logs it.
pub(super) struct RelayRecord {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<ClientConnection>,
    pub(super) target: Arc<RelayTarget>,
    /// `TCP`, `TLS` or `UDP`.
    pub(super) protocol: &'static str,
    /// The TLS server name it was relayed by.
    pub(super) server_name: Option<Box<str>>,
    pub(super) started: Instant,
    pub(super) attempts: u32,
    pub(super) upstream: Option<SocketAddr>,
    /// Its place among what the endpoint has.
    pub(super) entered: Option<Entered>,
    /// From the client.
    pub(super) received: u64,
    /// To the client.
    pub(super) sent: u64,
    /// Why it ended, if not by itself.
    pub(super) flag: &'static str,
}

impl RelayRecord {
    /// Begins a record.
    pub(super) fn new(
        worker: &Rc<Worker>,
        client: &Rc<ClientConnection>,
        target: &Arc<RelayTarget>,
        protocol: &'static str,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            target: Arc::clone(target),
            protocol,
            server_name: None,
            started: Instant::now(),
            attempts: 0,
            upstream: None,
            entered: None,
            received: 0,
            sent: 0,
            flag: "stopped",
        }
    }
}

impl Drop for RelayRecord {
    fn drop(&mut self) {
        let log = &self.worker.log;
        if !log.is_on() {
            return;
        }
        let cluster = self.target.upstream.id();
        log.write_relay(&RelayLine {
            client: &self.client.addr_text,
            listener: &self.client.listener.0,
            protocol: self.protocol,
            server_name: self.server_name.as_deref(),
            received: self.received,
            sent: self.sent,
            duration: self.started.elapsed(),
            namespace: &cluster.namespace,
            service: &cluster.service,
            upstream: self.upstream,
            attempts: self.attempts,
            flag: self.flag,
        });
    }
}
