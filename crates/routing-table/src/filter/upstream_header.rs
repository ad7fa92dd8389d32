//! Tells the client which endpoint answered, for those who look for what is wrong. Off unless asked for: it shows the inside.

use super::ApplyFilter;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::net::SocketAddr;

/// The field that says the endpoint's address. An answer of our own does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHeader(pub HeaderName);

impl ApplyFilter for UpstreamHeader {
    fn on_response(&self, headers: &mut HeaderMap, endpoint: Option<SocketAddr>) {
        let value = endpoint.map(|addr| HeaderValue::try_from(addr.to_string()));
        match value {
            Some(Ok(value)) => drop(headers.insert(&self.0, value)),
            _ => drop(headers.remove(&self.0)),
        }
    }

    fn on_response_apart(&self, fields: &mut HeaderMap) {
        fields.remove(&self.0);
    }
}

impl fmt::Display for UpstreamHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream-header={}", self.0)
    }
}
