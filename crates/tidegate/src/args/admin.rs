//! Flags of the admin port.

use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the admin port is by default.
pub(crate) const ADMIN_ADDR: &str = "127.0.0.1:10254";

/// What the admin port tells, and to whom.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Admin port")]
pub(crate) struct AdminArgs {
    /// Where /healthz, /readyz, /metrics, /backends and /profile are served
    #[arg(
        long = "admin-addr",
        value_name = "ADDR",
        default_value = ADMIN_ADDR,
        value_parser = address
    )]
    pub(crate) addr: SocketAddr,
    /// Let whoever reaches that address change the weights of endpoints, and drain them
    #[arg(long = "admin-writes")]
    pub(crate) writes: bool,
    /// Let whoever reaches that address see where processor time goes: /profile
    #[arg(long = "admin-profile")]
    pub(crate) profile: bool,
    /// Ask for the bearer token in this file, 16 characters or more, but for /healthz, /readyz and /metrics; changes are
    /// picked up. Default: nobody is asked
    #[arg(long = "admin-token-file", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Ask for it for /metrics too
    #[arg(long = "admin-token-for-metrics", requires = "token_file")]
    pub(crate) token_for_metrics: bool,
    /// Speak TLS there, with this PEM chain, leaf first; changes are picked up
    #[arg(long = "admin-tls-cert", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM key of that certificate
    #[arg(long = "admin-tls-key", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text {
        "off" => "the admin port cannot be turned off; 127.0.0.1:0 is a port that nobody knows"
            .to_owned(),
        _ => format!("not an address with a port, such as {ADMIN_ADDR} or [::1]:10254"),
    })
}
