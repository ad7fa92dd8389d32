//! What tests share: backends, a client, load, certificates, and running the real binary. Fakes stand behind sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a failed unwrap is a failed test"
)]

pub mod api_server;
pub mod backend;
pub mod certificate;
pub mod client;
pub mod dns;
pub mod h2_raw;
pub mod h2c;
pub mod load;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod tls_client;

pub use api_server::ApiServer;
pub use backend::Backend;
pub use certificate::{Authority, Issued};
pub use client::{Answer, Client};
pub use load::{Load, Outcome};
pub use process::Tidegate;
pub use recorder::{Act, Recorder};
pub use tls_client::TlsClient;
