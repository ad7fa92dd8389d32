//! What a configuration comes to: a routing table and its endpoints, or the first thing that is wrong with it.
//!
//! Pure but for the certificate files it names. `backends`, `routes` and `listeners` each make their part.

mod backends;
mod filters;
mod listeners;
mod routes;

#[cfg(test)]
mod restriction_tests;
#[cfg(test)]
mod tests;

use crate::config::Config;
use crate::problem::{Wrong, steps};
use routing_table::{ClusterSet, EndpointSets, RoutingTable};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The namespace of everything that comes from a file.
pub(crate) const NAMESPACE: &str = "standalone";

/// What counts where the file says nothing.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// Name servers; empty: those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// Largest request body in bytes; `None` is unlimited.
    pub request_body: Option<u64>,
}

/// What a configuration means.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// What requests are routed by.
    pub table: Arc<RoutingTable>,
    /// The endpoints of every static backend.
    pub endpoints: EndpointSets,
    /// The certificate and authority files that were read.
    pub files: Vec<PathBuf>,
    /// What is served as it was asked for, and perhaps should not be, with its place.
    pub warnings: Vec<String>,
}

/// Why there is no table.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file is wrong.
    Wrong(Wrong),
    /// A file that it names is; the message names it.
    File(Wrong),
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// What all parts need.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) defaults: &'a Defaults,
    /// What relative file names are relative to.
    pub(crate) base: PathBuf,
    /// `false`: files that are named are not read, and what they are for is left out.
    pub(crate) read_files: bool,
}

/// Builds a table.
pub(crate) fn build(context: &Context<'_>) -> Result<Translation, Failure> {
    let mut files = Vec::new();
    let backends = backends::build(context, &mut files)?;
    let mut hosts = routes::build(context, &backends)?;
    let listeners = listeners::build(context, &backends, &mut hosts, &mut files)?;
    let backends::Backends {
        clusters,
        endpoints,
        ..
    } = backends;
    let table = table(listeners, clusters)?;
    files.sort();
    files.dedup();
    Ok(Translation {
        table: Arc::new(table),
        endpoints,
        files,
        warnings: Vec::new(),
    })
}

/// What there is to say of a configuration that is not wrong.
pub(crate) fn warnings(config: &Config, table: &RoutingTable) -> Vec<Wrong> {
    let unverified = config.backends.iter().filter(|(_, backend)| {
        let tls = backend.tls.as_ref();
        tls.is_some_and(|tls| tls.verify == Some(false))
    });
    let mut warnings: Vec<Wrong> = unverified
        .map(|(name, _)| {
            let message = "endpoints do not prove who they are, so whoever is in between can read along; \
                           without \"verify: false\" they have to";
            Wrong::at(&steps!["backends", name, "tls", "verify"], message)
        })
        .collect();
    warnings.extend(listeners::warnings(config, table));
    warnings
}

fn table(
    listeners: Vec<routing_table::Listener>,
    clusters: ClusterSet,
) -> Result<RoutingTable, Wrong> {
    // Names and addresses were compared before, so this is only a second look.
    RoutingTable::new(listeners, clusters)
        .map_err(|error| Wrong::at(&steps!["listeners"], error.to_string()))
}
