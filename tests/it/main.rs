//! Whole-system tests: the real binary, real sockets, and where a test says so a real API server.
//!
//! Tests of a cluster run inside its network namespace (`cargo xtask test` does that); elsewhere they say that they were
//! skipped, and fail instead when `TIDEGATE_REQUIRE_CLUSTER=1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a failed unwrap is a failed test"
)]

mod admin;
mod backend_policy;
mod backend_urls;
mod backends;
mod bad_objects;
mod bodies_under_load;
mod certificates;
mod client_certificates;
mod cluster;
mod command_line;
mod convergence;
mod deploy;
mod dns;
mod draining;
mod faults;
mod files;
mod idle_connections;
mod load_stand;
mod lossy_upstreams;
mod main_job;
mod messages;
mod one_file;
mod outage;
mod profile;
mod relays;
mod rolling;
mod slow_clients;
mod standalone;
mod tls;
mod vectors;
