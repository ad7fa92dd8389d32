//! Filters of a route of the file, in the order they are done in.

use crate::config::{HeaderChangesConfig, RedirectConfig, RewriteConfig, RouteConfig};
use crate::problem::{Step, Wrong, steps};
use http::{HeaderName, HeaderValue};
use policy::value::Span;
use routing_table::Filter;
use routing_table::filter::{
    AccessList, HeaderChanges, IpNet, PathRewrite, RateLimit, Redirect, RedirectTo, RequestHeaders,
    ResponseHeaders, UpstreamHeader, UrlRewrite, may_be_changed, network, redirect_status,
    redirect_url,
};
use routing_table::matcher::host::normal_host;
use routing_table::matcher::path::normal_path;
use std::time::Duration;

pub(super) fn filters(config: &RouteConfig, at: &[Step]) -> Result<Vec<Filter>, Wrong> {
    let below = |key: &'static str| [at, &steps![key]].concat();
    let mut filters = Vec::new();
    let deny = networks(&config.deny, &below("deny"))?;
    let allow = networks(&config.allow, &below("allow"))?;
    if !deny.is_empty() || !allow.is_empty() {
        filters.push(Filter::AccessList(AccessList { deny, allow }));
    }
    if let Some(limit) = &config.rate_limit {
        let at = below("rateLimit");
        let number = |key: &'static str, number| match number {
            1..=1_000_000 => Ok(number),
            _ => {
                let message = format!("{number} is not from 1 to 1000000");
                Err(Wrong::at(&[&at[..], &steps![key]].concat(), message))
            }
        };
        let requests = number("requests", limit.requests)?;
        filters.push(Filter::RateLimit(RateLimit {
            requests,
            per: limit
                .per
                .as_ref()
                .map_or(Duration::from_secs(1), |span: &Span| *span.get()),
            at_once: number("burst", limit.burst.unwrap_or(requests))?,
            exempt: networks(&limit.except, &[&at[..], &steps!["except"]].concat())?,
        }));
    }
    if let Some(config) = &config.redirect {
        filters.push(Filter::Redirect(redirect(config, &below("redirect"))?));
    }
    if let Some(config) = &config.rewrite {
        filters.push(Filter::UrlRewrite(rewrite(config, &below("rewrite"))?));
    }
    if let Some(config) = &config.request_headers {
        let changes = changes(config, &below("requestHeaders"))?;
        filters.push(Filter::RequestHeaders(RequestHeaders(changes)));
    }
    if let Some(config) = &config.response_headers {
        let changes = changes(config, &below("responseHeaders"))?;
        filters.push(Filter::ResponseHeaders(ResponseHeaders(changes)));
    }
    if let Some(name) = &config.upstream_header {
        let name = field(name, &below("upstreamHeader"))?;
        filters.push(Filter::UpstreamHeader(UpstreamHeader(name)));
    }
    Ok(filters)
}

/// Reads networks, or addresses alone.
pub(super) fn networks(all: &[String], at: &[Step]) -> Result<Vec<IpNet>, Wrong> {
    let all = all.iter().enumerate();
    all.map(|(index, text)| {
        network(text.trim()).map_err(|error| Wrong::at(&[at, &steps![index]].concat(), error))
    })
    .collect()
}

fn redirect(config: &RedirectConfig, at: &[Step]) -> Result<Redirect, Wrong> {
    let below = |key: &'static str| [at, &steps![key]].concat();
    let url = |key, text: &str| {
        redirect_url(text)
            .map(Box::from)
            .map_err(|error| Wrong::at(&below(key), error))
    };
    let (to, usual) = match (config.https, &config.url, &config.root) {
        (true, None, None) => {
            let port = config.port.unwrap_or(443);
            (RedirectTo::Https { port }, 308)
        }
        (false, Some(text), None) => {
            let after_scheme = text.split_once("://").map(|(_, rest)| rest);
            if config.with_path && after_scheme.is_none_or(|rest| rest.contains(['/', '?', '#'])) {
                let message = "with \"withPath\", it must end with its host";
                return Err(Wrong::at(&below("url"), message));
            }
            let (url, with_path) = (url("url", text)?, config.with_path);
            (RedirectTo::Url { url, with_path }, 302)
        }
        (false, None, Some(root)) if root.starts_with('/') => {
            (RedirectTo::FromRoot(url("root", root)?), 302)
        }
        (false, None, Some(_)) => return Err(Wrong::at(&below("root"), "it is no path")),
        _ => {
            let message = "exactly one of \"https\", \"url\" and \"root\" must be given";
            return Err(Wrong::at(at, message));
        }
    };
    for (key, given, fits) in [
        ("port", config.port.is_some(), config.https),
        ("withPath", config.with_path, config.url.is_some()),
    ] {
        if given && !fits {
            return Err(Wrong::at(&below(key), "it does not go with this way"));
        }
    }
    let status = redirect_status(config.status.unwrap_or(usual))
        .map_err(|error| Wrong::at(&below("status"), error))?;
    Ok(Redirect { status, to })
}

fn rewrite(config: &RewriteConfig, at: &[Step]) -> Result<UrlRewrite, Wrong> {
    let below = |key: &'static str| [at, &steps![key]].concat();
    let path = |key, text: &str| match normal_path(text) {
        Ok(path) if path.starts_with("//") => {
            Err(Wrong::at(&below(key), "it starts with two slashes"))
        }
        Ok(path) => Ok(path.into_owned()),
        Err(error) => Err(Wrong::at(&below(key), error.to_string())),
    };
    let rewritten = match (&config.path, &config.prefix, &config.base) {
        (None, None, None) => None,
        (Some(text), None, None) => Some(PathRewrite::Whole(path("path", text)?.into())),
        (None, Some(text), None) => Some(PathRewrite::prefix(&path("prefix", text)?)),
        (None, None, Some(text)) => Some(PathRewrite::base(&path("base", text)?)),
        _ => {
            let message = "only one of \"path\", \"prefix\" and \"base\" may be given";
            return Err(Wrong::at(at, message));
        }
    };
    if rewritten.is_none() && config.host.is_none() {
        return Err(Wrong::at(at, "it rewrites nothing"));
    }
    if let Some(host) = &config.host {
        normal_host(host).map_err(|error| Wrong::at(&below("host"), error.to_string()))?;
    }
    Ok(UrlRewrite {
        path: rewritten,
        host: config.host.as_deref().map(Box::from),
    })
}

fn changes(config: &HeaderChangesConfig, at: &[Step]) -> Result<HeaderChanges, Wrong> {
    let mut out = HeaderChanges::default();
    for (index, name) in config.remove.iter().enumerate() {
        let at = [at, &steps!["remove", index]].concat();
        out.remove.push(field(name, &at)?);
    }
    for (name, value) in &config.set {
        let at = [at, &steps!["set", name]].concat();
        let value = HeaderValue::from_str(value)
            .map_err(|_| Wrong::at(&at, "not the value of a header field"))?;
        out.set.push((field(name, &at)?, value));
    }
    Ok(out)
}

/// A field that may be changed.
fn field(name: &str, at: &[Step]) -> Result<HeaderName, Wrong> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Wrong::at(at, "not the name of a header field"))?;
    if may_be_changed(&name) {
        Ok(name)
    } else {
        let message =
            format!("{name} frames the message or is our own word, and cannot be changed");
        Err(Wrong::at(at, message))
    }
}
