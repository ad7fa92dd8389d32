//! What goes wrong in the field, done to real processes: backends that die, hang, lie or are slow, and a proxy that is stopped.
//!
//! Each test prints its figures. They are held against their bars where these are about behaviour; times have a factor of
//! [`SLACK`] in the short form, since the machine may have two processors and other tests to run. With `TIDEGATE_FULL=1` the
//! counts are the real ones and there is no factor: for a machine that does nothing else, with `--test-threads=1`.
//!
//! What closes connections at rest is in `lossy_upstreams`: no GET fails of it, no POST is executed twice.

mod answers;
mod between;
mod checks;
mod dead;
mod judged;
mod operators;
mod outages;
mod pressure;
mod process;
mod shares;
mod stand;
mod traffic;

use crate::load_stand::full;
use std::time::Duration;

/// How much longer things may take on a busy machine. A wait for the 2 processors that all tests share was seen to be as long.
const SLACK: u32 = 3;

/// A bar for a time, on this machine.
fn within(bar: Duration) -> Duration {
    if full() { bar } else { bar * SLACK }
}

/// A bar for a time, on this machine, in milliseconds.
fn within_millis(bar: u64) -> f64 {
    within(Duration::from_millis(bar)).as_secs_f64() * 1000.0
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
