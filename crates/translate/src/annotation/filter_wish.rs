//! What the annotations of an Ingress come to as filters of its routes, in the order they are done in.
//!
//! Whether a host has TLS, and with it whether `ssl-redirect` does anything, is for `ingress` to say.

use http::HeaderName;
use routing_table::filter::{
    AccessList, IpNet, PathRewrite, RateLimit, Redirect, RedirectTo, UpstreamHeader, UrlRewrite,
};
use routing_table::{Filter, PathMatch};
use std::time::Duration;

/// What an Ingress asks for.
#[derive(Debug, Clone)]
pub(crate) struct FilterWish {
    pub(crate) allow: Vec<IpNet>,
    pub(crate) deny: Vec<IpNet>,
    /// Requests a second; 0 is no limit.
    pub(crate) per_second: u32,
    /// Requests a minute; 0 is no limit.
    pub(crate) per_minute: u32,
    pub(crate) burst_multiplier: u32,
    pub(crate) burst: Option<u32>,
    pub(crate) unlimited: Vec<IpNet>,
    pub(crate) rewrite: Option<RewriteTarget>,
    pub(crate) upstream_host: Option<Box<str>>,
    /// Plain requests for hosts with TLS are sent to https.
    pub(crate) ssl_redirect: bool,
    /// All plain requests are.
    pub(crate) force_ssl_redirect: bool,
    pub(crate) permanent: Option<RedirectTo>,
    pub(crate) permanent_status: u16,
    pub(crate) temporal: Option<RedirectTo>,
    pub(crate) temporal_status: u16,
    pub(crate) app_root: Option<Box<str>>,
    pub(crate) upstream_header: Option<HeaderName>,
}

/// What `rewrite-target` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RewriteTarget {
    /// This path, in normal form, for every request.
    Path(Box<str>),
    /// Parts of the path, or another server: not supported.
    Unsupported,
}

impl FilterWish {
    pub(crate) fn new(ssl_redirect: bool) -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            per_second: 0,
            per_minute: 0,
            burst_multiplier: 5,
            burst: None,
            unlimited: Vec::new(),
            rewrite: None,
            upstream_host: None,
            ssl_redirect,
            force_ssl_redirect: false,
            permanent: None,
            permanent_status: 301,
            temporal: None,
            temporal_status: 302,
            app_root: None,
            upstream_header: None,
        }
    }

    /// Whether clients may ask only so often.
    pub(crate) fn limits_rate(&self) -> bool {
        self.per_second > 0 || self.per_minute > 0
    }

    /// Who is let in.
    pub(crate) fn access(&self) -> AccessList {
        AccessList {
            deny: self.deny.clone(),
            allow: self.allow.clone(),
        }
    }

    /// The filters of a route for this path. `to_https`: it sends plain requests there.
    pub(crate) fn filters(&self, path: &PathMatch, to_https: bool) -> Vec<Filter> {
        let mut filters = Vec::new();
        if !self.allow.is_empty() || !self.deny.is_empty() {
            filters.push(Filter::AccessList(self.access()));
        }
        for (requests, per) in [(self.per_second, 1), (self.per_minute, 60)] {
            if requests > 0 {
                filters.push(Filter::RateLimit(self.rate_limit(requests, per)));
            }
        }
        let mut redirect = |status, to| {
            filters.push(Filter::Redirect(Redirect { status, to }));
        };
        if to_https {
            redirect(308, RedirectTo::Https { port: 443 });
        }
        // As ingress-nginx has it, the temporary one goes before.
        match (&self.temporal, &self.permanent) {
            (Some(to), _) => redirect(self.temporal_status, to.clone()),
            (None, Some(to)) => redirect(self.permanent_status, to.clone()),
            (None, None) => {}
        }
        if let Some(root) = &self.app_root
            && path.matches("/")
        {
            redirect(302, RedirectTo::FromRoot(root.clone()));
        }
        let rewrite = UrlRewrite {
            path: self.path_rewrite(path),
            host: self.upstream_host.clone(),
        };
        if rewrite != UrlRewrite::default() {
            filters.push(Filter::UrlRewrite(rewrite));
        }
        if let Some(name) = &self.upstream_header {
            filters.push(Filter::UpstreamHeader(UpstreamHeader(name.clone())));
        }
        filters
    }

    fn rate_limit(&self, requests: u32, seconds: u64) -> RateLimit {
        // ingress-nginx: the burst comes on top of the one request that the rate itself allows.
        let burst = requests.saturating_mul(self.burst_multiplier);
        RateLimit {
            requests,
            per: Duration::from_secs(seconds),
            at_once: self.burst.unwrap_or(burst.saturating_add(1)),
            exempt: self.unlimited.clone(),
        }
    }

    /// ingress-nginx leaves a path alone that is its own target, with all below it.
    fn path_rewrite(&self, path: &PathMatch) -> Option<PathRewrite> {
        let Some(RewriteTarget::Path(target)) = &self.rewrite else {
            return None;
        };
        let own = match path {
            PathMatch::Prefix(key) => target.strip_suffix('/').unwrap_or(target) == &**key,
            other => other.key() == &**target,
        };
        (!own).then(|| PathRewrite::Whole(target.clone()))
    }
}
