//! Orders that others add, without a change here: a type that implements [`CustomOrder`], given to the data plane at start.
//!
//! Policies name one by [`routing_table::policy::Balancing::Custom`]. Only their requests go through a trait object. An order
//! says who should have a request; whether that one may have it, and who has it otherwise, stays with us.

use crate::endpoint_set::{Member, Taker};
use std::fmt::Debug;
use std::time::Duration;

/// An order of endpoints.
pub trait CustomOrder: Debug + Send + Sync {
    /// The name by which policies ask for it.
    fn name(&self) -> &str;

    /// Called whenever something changes (endpoints, their health, their weights), for those that get requests at the same
    /// time: there is at least one, sorted by priority, name and address. What takes time belongs here.
    fn arrange(&self, members: &[Member]) -> Box<dyn Arrangement>;
}

/// What an order made of some members.
pub trait Arrangement: Debug + Send + Sync {
    /// The position of the member that should have the request. Where it is none, or one that may not have it, each gets it in
    /// turn. Called by all workers at once, for every request: it must not wait.
    fn choose(&self, choice: &Choice<'_>) -> Option<usize>;
}

/// One choice.
pub struct Choice<'a> {
    pub(super) members: &'a [Member],
    pub(super) turn: u64,
    pub(super) taker: &'a Taker<'a>,
}

impl Choice<'_> {
    /// The members, as they were arranged.
    pub fn members(&self) -> &[Member] {
        self.members
    }

    /// Whether this member may have the request at this moment: it has room, and was not tried for it already.
    pub fn may(&self, position: usize) -> bool {
        self.members
            .get(position)
            .is_some_and(|member| self.taker.may(member))
    }

    /// Another number for each request, one more each time while the cluster is calm.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// The hash of the client's address.
    pub fn client(&self) -> Option<u64> {
        self.taker.ask.hash
    }

    /// The time since the data plane started.
    pub fn now(&self) -> Duration {
        self.taker.ask.now
    }
}
