//! The catalogue of bad input, as tables of bytes and what is expected of them.
//!
//! Each row of the catalogue is a [`vector::Row`]; each runs against a real tidegate of its own, with a recording backend
//! behind it. `TIDEGATE_VECTORS=B4` runs one row, `TIDEGATE_SEED` repeats a run.
//!
//! Not here yet, because what they test is not: R8 (rewrite), R9 (redirect), X9 and X10 (auth), regular expressions in R7,
//! redirects in X6, "PROXY header when on" in B31.

mod backends;
mod expectations;
mod framing;
mod headers;
mod invariants;
mod judge;
mod limits;
mod logging;
mod many_hosts;
mod random;
mod request_line;
mod routing;
mod runner;
mod slow;
mod stand;
mod upgrade;
mod upstream;
mod vector;

use stand::Setup;

#[tokio::test]
async fn vectors_of_framing() {
    runner::run("framing", Setup::plain(), framing::rows()).await;
}

#[tokio::test]
async fn vectors_of_request_lines() {
    runner::run("request lines", Setup::plain(), request_line::rows()).await;
}

#[tokio::test]
async fn vectors_of_routing() {
    runner::run("routing", routing::setup(), routing::rows()).await;
}

#[tokio::test]
async fn vectors_of_fields() {
    runner::run("fields", Setup::plain(), headers::rows()).await;
}

#[tokio::test]
async fn vectors_of_upstreams() {
    runner::run("upstreams", Setup::plain(), upstream::rows()).await;
}

#[tokio::test]
async fn vectors_of_limits() {
    runner::run("limits", Setup::plain(), limits::rows()).await;
}

#[tokio::test]
async fn vectors_of_upgrades() {
    runner::run("upgrades", Setup::plain(), upgrade::rows()).await;
}
