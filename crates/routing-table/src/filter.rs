//! Filters: what is done with a request and its answer besides sending it somewhere.
//!
//! A filter is a value of the table and costs a route without filters nothing. Each has a file of its own under `filter/`, a
//! variant of [`Filter`] and an arm of [`Filter::as_apply`]. Filters see a request in normal form and give back one in normal
//! form; they do no I/O and remember nothing. The one that has to remember, [`RateLimit`], is only described here: the data
//! plane counts.

mod access_list;
mod changed_fields;
mod header_changes;
mod rate_limit;
mod redirect;
mod upstream_header;
mod url_rewrite;

pub use access_list::{AccessList, network};
pub use changed_fields::{ChangedFields, folded, is_same_field, remove_every_spelling};
pub use header_changes::{HeaderChanges, RequestHeaders, ResponseHeaders, may_be_changed};
pub use ipnet::IpNet;
pub use rate_limit::RateLimit;
pub use redirect::{ACME_CHALLENGE, Redirect, RedirectTo, redirect_status, redirect_url};
pub use upstream_header::UpstreamHeader;
pub use url_rewrite::{PathRewrite, UrlRewrite};

use crate::matcher::PathMatch;
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

/// One thing that is done with requests of a route. They are done in the order of [`crate::Route::filters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Lets only some clients in.
    AccessList(AccessList),
    /// Lets each client in only so often.
    RateLimit(RateLimit),
    /// Sends clients elsewhere.
    Redirect(Redirect),
    /// Asks the upstream for another path or host.
    UrlRewrite(UrlRewrite),
    /// Changes the fields that the upstream gets.
    RequestHeaders(RequestHeaders),
    /// Changes the fields that the client gets.
    ResponseHeaders(ResponseHeaders),
    /// Tells the client which endpoint answered.
    UpstreamHeader(UpstreamHeader),
}

/// A request on its way through the filters of its route.
#[derive(Debug)]
pub struct Passage<'a> {
    /// Who asks: behind trusted proxies, whom they ask for. Never an IPv4 address mapped into IPv6.
    pub client: IpAddr,
    /// Whether it came by TLS, by the word of a trusted proxy if there is one.
    pub is_https: bool,
    /// Its host in normal form.
    pub host: &'a str,
    /// Its path in normal form: what the upstream will be asked for.
    pub path: Cow<'a, str>,
    /// Its query.
    pub query: Option<&'a str>,
    /// What matched its path.
    pub matched: &'a PathMatch,
    /// The fields as the client sent them.
    pub sent: &'a HeaderMap,
    /// The fields as they were changed.
    pub headers: Option<ChangedFields>,
    /// What the upstream is told to be asked as, if not what the client said.
    pub upstream_host: Option<&'a str>,
}

/// A request that goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client may not have it.
    Forbidden,
    /// What would be sent has no single reading.
    BadTarget,
    /// The client shall ask elsewhere.
    Redirect {
        /// A status of redirection.
        status: u16,
        /// Where.
        location: HeaderValue,
    },
}

/// What a filter does. The default is nothing.
pub trait ApplyFilter {
    /// Looks at a request before it is sent, and may change or end it.
    fn on_request<'a>(&'a self, _: &mut Passage<'a>) -> ControlFlow<Ending> {
        ControlFlow::Continue(())
    }

    /// Changes the fields of an answer. `endpoint` is who gave it; `None` where it is our own.
    fn on_response(&self, _headers: &mut HeaderMap, _endpoint: Option<SocketAddr>) {}

    /// Takes what [`ApplyFilter::on_response`] decides from fields that come apart from those of the answer: from its trailers, and
    /// from those of an interim answer (1xx) before it.
    fn on_response_apart(&self, _fields: &mut HeaderMap) {}
}

impl Filter {
    /// What it does.
    pub fn as_apply(&self) -> &dyn ApplyFilter {
        match self {
            Self::AccessList(filter) => filter,
            Self::RateLimit(filter) => filter,
            Self::Redirect(filter) => filter,
            Self::UrlRewrite(filter) => filter,
            Self::RequestHeaders(filter) => filter,
            Self::ResponseHeaders(filter) => filter,
            Self::UpstreamHeader(filter) => filter,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessList(filter) => filter.fmt(f),
            Self::RateLimit(filter) => filter.fmt(f),
            Self::Redirect(filter) => filter.fmt(f),
            Self::UrlRewrite(filter) => filter.fmt(f),
            Self::RequestHeaders(filter) => write!(f, "request-headers[{}]", filter.0),
            Self::ResponseHeaders(filter) => write!(f, "response-headers[{}]", filter.0),
            Self::UpstreamHeader(filter) => filter.fmt(f),
        }
    }
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
