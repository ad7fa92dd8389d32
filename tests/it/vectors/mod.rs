//! The catalogue of bad input, as tables of bytes and what is expected of them.
//!
//! Each row of the catalogue is a [`vector::Row`]; each runs against a real tidegate of its own, with a recording backend
//! behind it. `TIDEGATE_VECTORS=B4` runs one row, `TIDEGATE_SEED` repeats a run.
//!
//! After every vector: the process lives, nothing panicked, errors say nothing of us, another tenant is served. Through every row
//! that tenant asks 50 times a second and never fails (`canary`); each vector is sent again, and memory does not grow with it
//! (`repeats`); after the row descriptors, tasks and connections are where they were (`invariants`).
//!
//! The short form sends each vector again 20 times. With `TIDEGATE_FULL=1`, rows run one at a time, vectors are sent again 1,000
//! times (`TIDEGATE_REPEAT` says otherwise; `repeats` says what is sent less often), the tenant's p99 is held to 50 ms, and T1, T2
//! and D17 have their real numbers. That takes three quarters of an hour, a release binary (`TIDEGATE_BIN`), and a machine that
//! does nothing else.
//!
//! Not here yet, because what they test is not: X9 and X10 (auth), regular expressions in R7, redirects in X6.

mod backends;
mod canary;
mod expectations;
mod framing;
mod handshake_flood;
mod handshakes;
mod headers;
mod hello;
mod http2;
mod http2_floods;
mod http2_frames;
mod http2_resets;
mod http2_runner;
mod invariants;
mod judge;
mod limits;
mod logging;
mod many_hosts;
mod proxy_header;
pub(crate) mod random;
mod repeats;
mod request_line;
mod routing;
mod runner;
mod slow;
mod stand;
mod tls;
mod tls_client;
mod tls_misuse;
mod tls_records;
mod upgrade;
mod upstream;
mod vector;

use http2_runner::Transport;
use stand::{Setup, Stand};

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

/// The rows of HTTP/2 over one transport.
async fn http2(title: &'static str, transport: Transport) {
    let rows = [http2_floods::rows(), http2_frames::rows(), http2::rows()];
    let rows = rows.into_iter().flatten();
    let rows = rows.map(|row| row.over(transport)).collect();
    runner::run(title, Setup::plain(), rows).await;
}

#[tokio::test]
async fn vectors_of_http2() {
    http2("HTTP/2 over TLS", Transport::Tls).await;
}

#[tokio::test]
async fn vectors_of_http2_by_prior_knowledge() {
    let stand = Stand::start("h2c-probe", &Setup::plain(), &[]).await;
    if http2_runner::speaks_prior_knowledge(&stand).await {
        http2("HTTP/2 by prior knowledge", Transport::PriorKnowledge).await;
    } else {
        println!("HTTP/2 by prior knowledge: not run: the plain port does not speak it");
    }
}

#[tokio::test]
async fn vectors_of_tls() {
    let rows = [handshakes::rows(), tls::rows(), tls_misuse::rows()];
    let rows = rows.into_iter().flatten().collect();
    runner::run("TLS", tls::setup(), rows).await;
}

#[tokio::test]
async fn vectors_of_proxy_headers() {
    runner::run("PROXY headers", Setup::plain(), proxy_header::rows()).await;
}
