//! One probe: what is asked of an endpoint, over what, and whether the answer is good.
//!
//! The caller limits the time. An answer is read no further than it has to be, and never beyond a bound.

use super::{Way, bytes, grpc, http};
use crate::proxy_header;
use crate::upstream_io::UpstreamIo;
use crate::upstream_tls::{Reach, UpstreamConnector};
use routing_table::policy::{ActiveCheck, CheckKind};
use std::net::SocketAddr;

/// What came of it, in words: good, or bad.
pub(super) type Answer = Result<String, String>;

/// What is asked again and again, made ready.
pub(super) struct Probe {
    pub(super) addr: SocketAddr,
    /// Or why it cannot be asked.
    tls: Result<Option<UpstreamConnector>, String>,
    /// What a connection begins with, in the clear.
    greeting: Vec<u8>,
    /// HTTP/2 is spoken to the cluster.
    http2: bool,
    kind: CheckKind,
}

impl Probe {
    /// `endpoint` is where requests go.
    pub(super) fn new(check: &ActiveCheck, endpoint: SocketAddr, way: &Way) -> Self {
        let port = check.port.unwrap_or(endpoint.port());
        let addr = SocketAddr::new(endpoint.ip(), port);
        // A port of its own is no place for the header that requests begin with.
        let version = way.proxy_header.filter(|_| addr == endpoint);
        Self {
            addr,
            tls: connector(&check.kind, endpoint, way),
            greeting: version.map(proxy_header::of_our_own).unwrap_or_default(),
            http2: way.http2,
            kind: check.kind.clone(),
        }
    }

    /// What is asked, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self.kind {
            CheckKind::Http { .. } => "http",
            CheckKind::Tcp => "tcp",
            CheckKind::Tls => "tls",
            CheckKind::Grpc { .. } => "grpc",
            CheckKind::Bytes { .. } => "bytes",
            CheckKind::Udp { .. } => "udp",
        }
    }

    /// Connects and asks.
    pub(super) async fn ask(&self) -> Answer {
        if let CheckKind::Udp { send, expect } = &self.kind {
            return bytes::ask_udp(self.addr, send, expect).await;
        }
        let tls = self.tls.as_ref().map_err(Clone::clone)?.as_ref();
        let io = UpstreamIo::connect(self.addr, tls, &self.greeting).await;
        let io = io.map_err(|error| error.to_string())?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        match &self.kind {
            // The second was asked in its own way.
            CheckKind::Tcp | CheckKind::Udp { .. } => Ok("connected".to_owned()),
            CheckKind::Tls => Ok("handshake done".to_owned()),
            CheckKind::Http {
                method,
                path,
                host,
                expected,
            } => {
                let host = host.as_deref();
                let question = http::request(method, path, host, self.addr, scheme)?;
                match self.http2 {
                    true => http::ask_http2(io, question, expected).await,
                    false => http::ask(io, &question, expected).await,
                }
            }
            CheckKind::Grpc { service } => grpc::ask(io, service, self.addr, scheme).await,
            CheckKind::Bytes { send, expect } => bytes::ask(io, send, expect).await,
        }
    }
}

fn connector(
    kind: &CheckKind,
    endpoint: SocketAddr,
    way: &Way,
) -> Result<Option<UpstreamConnector>, String> {
    let own = match &way.reach {
        _ if matches!(kind, CheckKind::Tcp | CheckKind::Udp { .. }) => return Ok(None),
        Reach::Plain => None,
        Reach::Tls(connector) => Some(connector),
        Reach::Closed => return Err("TLS to endpoints cannot be set up".to_owned()),
    };
    let speaking = |http2| own.map(|own| own.for_probe(endpoint, http2));
    Ok(match kind {
        CheckKind::Tls => {
            let own = own.map(AsRef::as_ref);
            let made = UpstreamConnector::for_handshake(endpoint, own);
            Some(made.map_err(|error| error.to_string())?)
        }
        CheckKind::Http { .. } => speaking(Some(way.http2)),
        CheckKind::Grpc { .. } => speaking(Some(true)),
        CheckKind::Bytes { .. } | CheckKind::Tcp | CheckKind::Udp { .. } => speaking(None),
    })
}
