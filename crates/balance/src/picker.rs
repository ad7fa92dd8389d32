//! The position of one cluster's round: a number for every pick, over all workers.
//!
//! One counter for all, so shares are exact over all workers. Only a worker that picks so often that the counter would be what
//! it waits for takes a few whole cycles at once; until it has used them it is exact by itself, and over all workers the
//! shares are off by less than one cycle for each.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Cycles that a worker picks one by one before it counts as busy, until the time it is told changes.
const CALM: u64 = if cfg!(loom) { 1 } else { 256 };
/// Turns that are taken at once, at least.
const BLOCK: u64 = if cfg!(loom) { 2 } else { 32 };

/// The position of one cluster's round. It outlives sets and tables, so an update does not start over.
#[derive(Debug)]
pub struct Picker {
    next: AtomicU64,
    /// By worker.
    cursors: Box<[Cursor]>,
}

/// What one worker has taken. Only that worker touches it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cursor {
    next: AtomicU64,
    end: AtomicU64,
    /// The time it was last told, in milliseconds, and its picks since then.
    time: AtomicU64,
    picks: AtomicU32,
}

/// One pick's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) number: u64,
    /// The worker picks so often that it should share nothing.
    pub(crate) is_busy: bool,
}

impl Picker {
    /// A round that begins with its first endpoint.
    pub fn new(workers: usize) -> Self {
        Self {
            next: AtomicU64::new(0),
            cursors: (0..workers).map(|_| Cursor::default()).collect(),
        }
    }

    /// The next number for this worker. A cycle of so many turns gives every endpoint its share.
    pub(crate) fn turn(&self, worker: usize, cycle: u64, now: Duration) -> Turn {
        // Relaxed: the number must be unique, nothing else hangs on it.
        let relaxed = Ordering::Relaxed;
        let one = || Turn {
            number: self.next.fetch_add(1, relaxed),
            is_busy: false,
        };
        let Some(cursor) = self.cursors.get(worker) else {
            return one();
        };
        let next = cursor.next.load(relaxed);
        if next < cursor.end.load(relaxed) {
            cursor.next.store(next + 1, relaxed);
            return Turn {
                number: next,
                is_busy: true,
            };
        }
        let time = now.as_millis() as u64;
        if cursor.time.load(relaxed) != time {
            cursor.time.store(time, relaxed);
            cursor.picks.store(0, relaxed);
        }
        let picks = cursor.picks.load(relaxed).saturating_add(1);
        cursor.picks.store(picks, relaxed);
        if u64::from(picks) <= CALM * cycle {
            return one();
        }
        let block = BLOCK.div_ceil(cycle) * cycle;
        let number = self.next.fetch_add(block, relaxed);
        cursor.next.store(number + 1, relaxed);
        cursor.end.store(number + block, relaxed);
        Turn {
            number,
            is_busy: true,
        }
    }
}

impl Default for Picker {
    /// For one worker.
    fn default() -> Self {
        Self::new(1)
    }
}
