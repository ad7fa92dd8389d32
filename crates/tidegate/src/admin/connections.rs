//! Which connections to the admin port may stay, where everybody in a network of pods may open some.
//!
//! None that comes ever waits for others: where there are too many, one of those before goes. Which one is decided so that who
//! opens many pays for it himself: of the address that has the most connections the oldest that has not sent a whole request
//! yet, and only then the oldest that is being answered. A probe sends its request with its first packet and has an address of
//! its own, so it is not among them, however many there are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// In its TLS handshake, or in the head of its request.
    Asking,
    /// The request is there; the answer is made, or on its way.
    Answering,
    /// It is what a profile is taken for. There is one at a time, so it is never closed for others.
    Profiling,
}

/// The connections there are, in the order they came in.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By number: the oldest first.
    all: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    stage: Stage,
    closing: CancellationToken,
}

/// The place of a connection among the others, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    connections: Arc<Connections>,
    /// Cancelled when it has to go.
    pub(super) closing: CancellationToken,
}

impl Connections {
    /// At most so many at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::default(),
        })
    }

    /// Takes a connection in, in place of another if need be.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let closing = CancellationToken::new();
        let mut open = self.open();
        if open.all.len() >= self.most {
            open.close_one();
        }
        let number = open.next;
        open.next += 1;
        let connection = Connection {
            peer: peer.to_canonical(),
            stage: Stage::Asking,
            closing: closing.clone(),
        };
        open.all.insert(number, connection);
        Place {
            number,
            connections: Arc::clone(self),
            closing,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is held, and half of an insertion is none.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn close_one(&mut self) {
        let mut connections: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for connection in self.all.values() {
            *connections.entry(connection.peer).or_default() += 1;
        }
        let candidates = self.all.iter();
        let candidates = candidates.filter(|(_, connection)| connection.stage != Stage::Profiling);
        let chosen = candidates.min_by_key(|(number, connection)| {
            let of_peer = connections.get(&connection.peer).copied().unwrap_or(0);
            (std::cmp::Reverse(of_peer), connection.stage, **number)
        });
        let Some(number) = chosen.map(|(number, _)| *number) else {
            return;
        };
        if let Some(connection) = self.all.remove(&number) {
            connection.closing.cancel();
        }
    }
}

impl Place {
    /// Notes how far it has come.
    pub(super) fn reached(&self, stage: Stage) {
        if let Some(connection) = self.connections.open().all.get_mut(&self.number) {
            connection.stage = stage;
        }
    }

    /// How far it has come; `None` when it has to go.
    pub(super) fn stage(&self) -> Option<Stage> {
        let open = self.connections.open();
        open.all
            .get(&self.number)
            .map(|connection| connection.stage)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn gone(places: &[&Place]) -> Vec<bool> {
        let closing = places.iter().map(|place| place.closing.is_cancelled());
        closing.collect()
    }

    #[test]
    fn the_oldest_that_has_not_asked_goes_first() {
        let connections = Connections::new(3);
        let [answered, first, second] = [1, 1, 1].map(|last| connections.enter(peer(last)));
        answered.reached(Stage::Answering);
        let third = connections.enter(peer(1));
        assert_eq!(
            gone(&[&answered, &first, &second, &third]),
            [false, true, false, false]
        );
        second.reached(Stage::Answering);
        third.reached(Stage::Answering);
        let fourth = connections.enter(peer(1));
        assert!(gone(&[&answered, &second, &third, &fourth])[0]);
        assert_eq!(answered.stage(), None);
        drop(fourth);
        let fifth = connections.enter(peer(1));
        assert_eq!(
            gone(&[&second, &third, &fifth]),
            [false; 3],
            "there is room"
        );
    }

    #[test]
    fn who_has_the_most_pays() {
        let connections = Connections::new(3);
        let probe = connections.enter(peer(1));
        let crowd: Vec<_> = (0..100).map(|_| connections.enter(peer(2))).collect();
        for place in &crowd {
            place.reached(Stage::Answering);
        }
        let one_more = connections.enter(peer(3));
        assert_eq!(gone(&[&probe, &one_more]), [false; 2]);
        assert_eq!(connections.open().all.len(), 3);
        drop((probe, crowd, one_more));
        assert!(connections.open().all.is_empty());
    }

    #[test]
    fn a_profile_is_left_alone() {
        let connections = Connections::new(2);
        let profile = connections.enter(peer(1));
        profile.reached(Stage::Profiling);
        let crowd: Vec<_> = (0..10).map(|_| connections.enter(peer(1))).collect();
        assert_eq!(profile.stage(), Some(Stage::Profiling));
        assert_eq!(crowd.iter().filter(|one| one.stage().is_some()).count(), 1);
    }
}
