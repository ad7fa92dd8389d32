//! How many connections to endpoints a worker may have: so few that descriptors are left for those who come, whatever they ask for.
//! One client connection of HTTP/2 may ask for a hundred.

use std::cell::Cell;
use std::rc::Rc;

/// The connections to endpoints that one worker may have.
#[derive(Debug)]
pub(crate) struct EndpointSlots {
    most: u64,
    used: Cell<u64>,
}

/// Room for one connection, for as long as it lives.
#[derive(Debug)]
pub(crate) struct EndpointSlot(Rc<EndpointSlots>);

impl EndpointSlots {
    pub(crate) fn new(most: u64) -> Rc<Self> {
        let used = Cell::new(0);
        Rc::new(Self { most, used })
    }

    /// Room for one more, if there is any. The last quarter is not for a client that has much already.
    pub(crate) fn take(self: &Rc<Self>, has_much: bool) -> Option<EndpointSlot> {
        let used = self.used.get();
        let most = match has_much {
            true => self.most - self.most / 4,
            false => self.most,
        };
        (used < most).then(|| {
            self.used.set(used + 1);
            EndpointSlot(Rc::clone(self))
        })
    }
}

impl Drop for EndpointSlot {
    fn drop(&mut self) {
        self.0.used.set(self.0.used.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_connection_has_gone() {
        let slots = EndpointSlots::new(2);
        let held = [slots.take(false), slots.take(false)];
        assert!(held.iter().all(Option::is_some) && slots.take(false).is_none());
        drop(held);
        assert!(slots.take(false).is_some());
    }

    #[test]
    fn the_last_of_them_are_for_those_who_have_few() {
        let slots = EndpointSlots::new(8);
        let held: Vec<_> = std::iter::from_fn(|| slots.take(true)).collect();
        assert_eq!(held.len(), 6);
        let others: Vec<_> = std::iter::from_fn(|| slots.take(false)).collect();
        assert_eq!(others.len(), 2);
    }
}
