//! The real controller against a fake API server on a real socket, and against real files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod directory;
mod events;
mod faults;
mod harness;
mod lease;
mod run_loop;
mod status;
mod watch;
