//! What the upstream is asked for instead. Nothing here knows variables or parts of a path.

use super::filter_wish::RewriteTarget;
use super::{Annotation, Closes};
use http::HeaderValue;
use routing_table::matcher::host::normal_host;
use routing_table::matcher::path::normal_path;

pub(super) const REWRITE_TARGET: Annotation = Annotation {
    name: "rewrite-target",
    nginx: &["rewrite-target"],
    value: "a path",
    doc: "The path that the upstream is asked for, whatever the client asked for; the query stays. A rule whose path is the \
          target itself is left alone, as in ingress-nginx. Targets with parts of the path (`$1`), absolute URLs, and targets \
          beside `use-regex` are not supported and ignored.",
    example: "/api",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.rewrite = Some(if value.contains('$') || value.contains("://") {
            RewriteTarget::Unsupported
        } else {
            let path = normal_path(value).map_err(|error| error.to_string())?;
            if path.starts_with("//") {
                return Err("it starts with two slashes".into());
            }
            RewriteTarget::Path(path.as_ref().into())
        });
        Ok(())
    },
};

pub(super) const UPSTREAM_HOST: Annotation = Annotation {
    name: "upstream-host",
    nginx: &["upstream-vhost"],
    value: "a host, with or without a port",
    doc: "The `Host` that the upstream is asked for; `X-Forwarded-Host` says the client's. Default: the client's.",
    example: "shop.internal",
    closes: Closes::Nothing,
    apply: |policy, value| {
        normal_host(value).map_err(|error| error.to_string())?;
        HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        policy.filters.upstream_host = Some(value.into());
        Ok(())
    },
};
