//! What is still to come of a request's cost: worked out from its head, and corrected by the bytes of its body as they pass.
//!
//! What was declared is taken off as it goes. Where nothing was declared, a body is taken to go on for as long as it has gone on
//! so far, which its end corrects.

use balance::{EndpointState, Seat};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Far below what would overflow in the sum of all that an endpoint has.
const MOST: u64 = 1 << 48;

/// The cost of one request at its endpoint. Its body and its place there share it.
#[derive(Debug)]
pub(crate) struct Outstanding {
    endpoint: Arc<EndpointState>,
    left: Cell<u64>,
    /// Of `left`, what nobody declared.
    guessed: Cell<u64>,
    of_byte: u64,
    declared: bool,
    /// The request has left: nothing of it counts any more.
    over: Cell<bool>,
}

impl Outstanding {
    /// The cost of a request that has entered with `cost`. `of_byte` is for each byte of its body, whose length is declared or
    /// not.
    pub(crate) fn new(
        endpoint: Arc<EndpointState>,
        cost: u64,
        of_byte: u64,
        declared: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            endpoint,
            left: Cell::new(cost),
            guessed: Cell::new(0),
            of_byte,
            declared,
            over: Cell::new(false),
        })
    }

    /// So many bytes more have passed.
    pub(crate) fn passed(&self, bytes: u64) {
        if self.over.get() {
            return;
        }
        let cost = bytes.saturating_mul(self.of_byte);
        if self.declared {
            self.pay(cost.min(self.left.get()));
            return;
        }
        let more = cost.min(MOST.saturating_sub(self.left.get()));
        self.endpoint.charge(more);
        self.left.set(self.left.get() + more);
        self.guessed.set(self.guessed.get() + more);
    }

    /// The body has ended: what more was expected of it does not come.
    pub(crate) fn ended(&self) {
        if !self.over.get() {
            self.pay(self.guessed.take());
        }
    }

    /// The request leaves its endpoint.
    pub(crate) fn leave(&self, seat: Seat) {
        if !self.over.replace(true) {
            self.endpoint.leave(self.left.take(), seat);
        }
    }

    fn pay(&self, cost: u64) {
        self.endpoint.pay(cost);
        self.left.set(self.left.get() - cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn endpoint() -> Arc<EndpointState> {
        let addr = ([127, 0, 0, 1], 80).into();
        Arc::new(EndpointState::new(addr, Duration::ZERO))
    }

    #[test]
    fn what_was_declared_is_taken_off_and_no_more() {
        let endpoint = endpoint();
        endpoint.charge(10 + 100);
        let outstanding = Outstanding::new(Arc::clone(&endpoint), 110, 1, true);
        outstanding.passed(60);
        assert_eq!(endpoint.cost(), 50);
        outstanding.passed(40);
        outstanding.ended();
        assert_eq!(endpoint.cost(), 10);
        outstanding.passed(1_000);
        assert_eq!(endpoint.cost(), 0);
    }

    #[test]
    fn what_was_not_declared_grows_until_it_ends() {
        let endpoint = endpoint();
        endpoint.charge(10);
        let outstanding = Outstanding::new(Arc::clone(&endpoint), 10, 2, false);
        outstanding.passed(100);
        assert_eq!(endpoint.cost(), 210);
        outstanding.passed(u64::MAX);
        assert_eq!(endpoint.cost(), MOST);
        outstanding.ended();
        assert_eq!(endpoint.cost(), 10);
    }
}
