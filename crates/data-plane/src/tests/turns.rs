//! Turns are first come, first served, and nobody is forgotten.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_crowd_begins_a_few_at_a_time_in_order() {
    let turns = Turns::default();
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut places: Vec<Place> = (0..3 * BEGIN).map(|_| Place::default()).collect();
    let mut ready = |places: &mut Vec<Place>| {
        let polled = places
            .iter_mut()
            .map(|place| turns.poll_begin(place, &mut cx));
        polled.map(|polled| polled.is_ready()).collect::<Vec<_>>()
    };
    let few = BEGIN as usize;
    let first = ready(&mut places);
    assert!(first[..few].iter().all(|ready| *ready));
    assert!(!first[few..].iter().any(|ready| *ready));
    assert!(places[few..].iter().all(Place::is_waiting));
    places.drain(..few);
    // A turn wakes the next few, and only those may begin; a newcomer has to wait behind the others.
    turns.call();
    assert_eq!(woken.0.load(Ordering::Relaxed), few);
    places.push(Place::default());
    let second = ready(&mut places);
    assert!(second[..few].iter().all(|ready| *ready));
    assert!(!second[few..].iter().any(|ready| *ready));
    places.drain(..few);
    turns.call();
    let third = ready(&mut places);
    assert_eq!(third.iter().filter(|ready| **ready).count(), few);
    assert!(places.last().is_some_and(Place::is_waiting));
    places.drain(..few);
    turns.call();
    assert_eq!(ready(&mut places), [true]);
    assert!(turns.waiting.borrow().is_empty());
}

#[tokio::test]
async fn whoever_waits_is_called_and_who_has_left_holds_nobody_up() {
    let turns = std::rc::Rc::new(Turns::default());
    let calling = turns.run();
    let all = async {
        // These leave while they wait.
        for _ in 0..2 * BEGIN {
            let mut place = Place::default();
            let mut cx = Context::from_waker(Waker::noop());
            let _ = turns.poll_begin(&mut place, &mut cx);
        }
        let begun = (0..5 * BEGIN).map(|_| async {
            let mut place = Place::default();
            poll_fn(|cx| turns.poll_begin(&mut place, cx)).await;
        });
        futures_util::future::join_all(begun).await;
    };
    tokio::select! {
        () = calling => unreachable!("it never ends"),
        () = all => {}
    }
}
