//! Where a listener's bytes go, as the current table has it, and how much of it there is now.

use super::own;
use crate::client::ClientConnection;
use crate::upstream::Upstream;
use routing_table::matcher::host::parent;
use routing_table::{HostMatch, Listener, ListenerProtocol, Relay};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A relay of the current table with its cluster.
#[derive(Debug)]
pub(crate) struct RelayTarget {
    pub(crate) relay: Arc<Relay>,
    pub(crate) upstream: Arc<Upstream>,
    /// Where we listen for the same transport.
    listening: Arc<Vec<SocketAddr>>,
    /// Connections or sessions now, over all workers. Outlives the table.
    open: Arc<AtomicU64>,
}

/// One connection or session that was let in.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<AtomicU64>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RelayTarget {
    /// Whether an endpoint is a listener of ours.
    pub(super) fn leads_back(&self, endpoint: SocketAddr) -> bool {
        own::leads_back(endpoint, self.listening.iter().copied())
    }

    /// Whether it is for this client, by its address.
    pub(super) fn lets_in(&self, client: &ClientConnection) -> bool {
        self.relay.access.permits(client.addr.ip().to_canonical())
    }

    /// Lets one more in, unless there are as many as there may be.
    pub(crate) fn admit(&self) -> Option<Admitted> {
        // Counted before it is compared, so that two workers cannot both take the last place.
        let admitted = Admitted(Arc::clone(&self.open));
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        (before < self.relay.limits.most).then_some(admitted)
    }
}

/// The relays of one listener.
#[derive(Debug, Default)]
pub(crate) struct RelayTargets {
    /// For whatever comes.
    all: Option<Arc<RelayTarget>>,
    /// For TLS with one of these server names.
    exact: HashMap<Box<str>, Arc<RelayTarget>>,
    wildcard: HashMap<Box<str>, Arc<RelayTarget>>,
    /// Names under a wildcard here that are virtual hosts of their own, which comes before a wildcard.
    ours: HashSet<Box<str>>,
}

impl RelayTargets {
    /// The relays of `listener`, beside which we listen on these addresses for the same transport. Counts are taken over from what it had in the table before.
    pub(crate) fn new(
        listener: &Listener,
        upstreams: &[Arc<Upstream>],
        listening: &Arc<Vec<SocketAddr>>,
        previous: Option<&RelayTargets>,
    ) -> Self {
        let target = |relay: &Arc<Relay>, before: Option<&Arc<RelayTarget>>| {
            Some(Arc::new(RelayTarget {
                relay: Arc::clone(relay),
                // A table is closed, so it is there.
                upstream: upstreams.get(relay.cluster.get()).cloned()?,
                listening: Arc::clone(listening),
                open: before.map_or_else(Arc::default, |before| Arc::clone(&before.open)),
            }))
        };
        let mut this = Self::default();
        match &listener.protocol {
            ListenerProtocol::Http => {}
            ListenerProtocol::Tcp(relay) | ListenerProtocol::Udp(relay) => {
                this.all = target(relay, previous.and_then(|previous| previous.all.as_ref()));
            }
            ListenerProtocol::Https(settings) => {
                for (host, relay) in settings.passthrough.iter() {
                    let (name, before) = match host {
                        HostMatch::Exact(name) => (name, previous.map(|p| &p.exact)),
                        HostMatch::Wildcard(suffix) => (suffix, previous.map(|p| &p.wildcard)),
                        HostMatch::Any => continue,
                    };
                    let before = before.and_then(|before| before.get(name));
                    let Some(target) = target(relay, before) else {
                        continue;
                    };
                    match host {
                        HostMatch::Exact(_) => this.exact.insert(name.clone(), target),
                        _ => this.wildcard.insert(name.clone(), target),
                    };
                }
            }
        }
        for (host, _) in listener.virtual_hosts.iter() {
            if let HostMatch::Exact(name) = host
                && parent(name).is_some_and(|suffix| this.wildcard.contains_key(suffix))
            {
                this.ours.insert(name.clone());
            }
        }
        this
    }

    /// Where everything of the listener goes.
    pub(crate) fn all(&self) -> Option<&Arc<RelayTarget>> {
        self.all.as_ref()
    }

    /// Whether some server names are passed on.
    pub(crate) fn has_names(&self) -> bool {
        !(self.exact.is_empty() && self.wildcard.is_empty())
    }

    /// Where connections for a server name in normal form go, if they are passed on.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<RelayTarget>> {
        let wildcard = || {
            let found = self.wildcard.get(parent(name)?)?;
            (!self.ours.contains(name)).then_some(found)
        };
        self.exact.get(name).or_else(wildcard)
    }
}
