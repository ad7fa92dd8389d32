//! A cluster as the data plane runs it: its endpoints, and the state that outlives tables.

use crate::error::ProxyError;
use arc_swap::ArcSwap;
use balance::{EndpointSet, EndpointState, NoPick, Picker};
use routing_table::{ClusterId, Endpoint, InFlightLimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// One cluster. It stays the same value for as long as consecutive tables have the cluster.
#[derive(Debug)]
pub(crate) struct Upstream {
    id: ClusterId,
    endpoints: ArcSwap<EndpointSet>,
    picker: Picker,
    /// Requests that wait for an endpoint.
    waiting: AtomicU32,
    /// Told when an endpoint may have room again.
    freed: Notify,
}

impl Upstream {
    /// A cluster without endpoints.
    pub(crate) fn new(id: ClusterId) -> Self {
        Self {
            id,
            endpoints: ArcSwap::default(),
            picker: Picker::default(),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &ClusterId {
        &self.id
    }

    /// Makes these its endpoints; state is kept by address.
    pub(crate) fn set_endpoints(&self, endpoints: &[Endpoint]) {
        let next = EndpointSet::new(endpoints, &self.endpoints.load());
        self.endpoints.store(Arc::new(next));
        // There may be new ones with room.
        self.freed.notify_waiters();
    }

    /// The endpoint for one attempt, not one of `tried` if there is another. `now` is [`crate::worker::Worker::now`].
    pub(crate) fn pick(&self, tried: &[SocketAddr], now: Duration) -> Option<Arc<EndpointState>> {
        self.picker
            .pick(&self.endpoints.load(), tried, now)
            .cloned()
    }

    /// As [`Upstream::pick`], but an endpoint with fewer requests than its limit, which is waited for if it must be.
    ///
    /// # Errors
    /// [`ProxyError::NoEndpoint`], or [`ProxyError::Overloaded`] when too many wait already or it took too long.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        tried: &[SocketAddr],
        now: Duration,
        limit: InFlightLimit,
        queued: impl FnOnce(),
    ) -> Result<Entered, ProxyError> {
        // Whoever came first has its turn first.
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Some(entered) = self.try_enter(tried, now, limit.requests)?
        {
            return Ok(entered);
        }
        let Some(_place) = Place::take(self, limit.queue) else {
            return Err(ProxyError::Overloaded);
        };
        queued();
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                if let Some(entered) = self.try_enter(tried, now, limit.requests)? {
                    return Ok(entered);
                }
                freed.await;
            }
        };
        match timeout(limit.wait, waiting).await {
            Ok(entered) => entered,
            Err(_) => Err(ProxyError::Overloaded),
        }
    }

    fn try_enter(
        self: &Arc<Self>,
        tried: &[SocketAddr],
        now: Duration,
        limit: u32,
    ) -> Result<Option<Entered>, ProxyError> {
        let endpoints = self.endpoints.load();
        match self.picker.pick_and_enter(&endpoints, tried, now, limit) {
            Ok(endpoint) => Ok(Some(Entered {
                upstream: Arc::clone(self),
                endpoint: Arc::clone(endpoint),
            })),
            Err(NoPick::Full) => Ok(None),
            Err(NoPick::Empty) => Err(ProxyError::NoEndpoint),
        }
    }

    /// Lets others go before an endpoint until this time.
    pub(crate) fn pass_over(&self, addr: SocketAddr, until: Duration) {
        let endpoints = self.endpoints.load();
        if let Some(endpoint) = endpoints.all().iter().find(|one| one.addr() == addr) {
            endpoint.pass_over_until(until);
        }
    }

    /// Every endpoint.
    pub(crate) fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }
}

/// A request that counts at an endpoint for as long as this lives.
#[derive(Debug)]
pub(crate) struct Entered {
    upstream: Arc<Upstream>,
    endpoint: Arc<EndpointState>,
}

impl Entered {
    pub(crate) fn endpoint(&self) -> &Arc<EndpointState> {
        &self.endpoint
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.endpoint.leave();
        if self.upstream.waiting.load(Ordering::Relaxed) > 0 {
            self.upstream.freed.notify_one();
        }
    }
}

/// A place in the queue of an upstream.
struct Place<'a>(&'a Upstream);

impl<'a> Place<'a> {
    fn take(upstream: &'a Upstream, most: u32) -> Option<Self> {
        let taken = upstream
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < most).then_some(count + 1)
            });
        taken.ok().map(|_| Self(upstream))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        // What it was told it may have been told in place of another.
        self.0.freed.notify_one();
    }
}
