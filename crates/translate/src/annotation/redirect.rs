//! Where clients are sent instead of being served. Where is what stands here, or the same host: no variable is ever filled in
//! but the request's own path, behind a URL that ends with its host.

use super::value::{BOOLEAN, boolean};
use super::{Annotation, Closes};
use routing_table::filter::{RedirectTo, redirect_status, redirect_url};

pub(super) const SSL_REDIRECT: Annotation = Annotation {
    name: "ssl-redirect",
    nginx: &["ssl-redirect"],
    value: BOOLEAN,
    doc: "Answer plain requests for a host with TLS with 308 to https, but for challenges of ACME. Behind `--trusted-proxy` \
          `X-Forwarded-Proto` says what is plain. Default: what `--ssl-redirect` says (true).",
    example: "false",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.ssl_redirect = boolean(value)?;
        Ok(())
    },
};

pub(super) const FORCE_SSL_REDIRECT: Annotation = Annotation {
    name: "force-ssl-redirect",
    nginx: &["force-ssl-redirect"],
    value: BOOLEAN,
    doc: "The same whether the host has TLS here or not. Default false.",
    example: "true",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.force_ssl_redirect = boolean(value)?;
        Ok(())
    },
};

const URL: &str = "an absolute URL of http or https";
const STATUS: &str = "301, 302, 303, 307 or 308";

pub(super) const PERMANENT_REDIRECT: Annotation = Annotation {
    name: "permanent-redirect",
    nginx: &["permanent-redirect"],
    value: URL,
    doc: "Answer with a redirection to this URL instead of asking an upstream. `$request_uri` at its end, right behind the host, \
          stands for the path and query asked for; no other variable is known. Default: none.",
    example: "https://new.example.com",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.permanent = Some(to(value)?);
        Ok(())
    },
};

pub(super) const PERMANENT_REDIRECT_CODE: Annotation = Annotation {
    name: "permanent-redirect-code",
    nginx: &["permanent-redirect-code"],
    value: STATUS,
    doc: "The status of `permanent-redirect`. Default 301.",
    example: "308",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.permanent_status = status(value)?;
        Ok(())
    },
};

pub(super) const TEMPORAL_REDIRECT: Annotation = Annotation {
    name: "temporal-redirect",
    nginx: &["temporal-redirect"],
    value: URL,
    doc: "As `permanent-redirect`, which it goes before, for a while. Default: none.",
    example: "https://elsewhere.example.com",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.temporal = Some(to(value)?);
        Ok(())
    },
};

pub(super) const TEMPORAL_REDIRECT_CODE: Annotation = Annotation {
    name: "temporal-redirect-code",
    nginx: &["temporal-redirect-code"],
    value: STATUS,
    doc: "The status of `temporal-redirect`. Default 302.",
    example: "307",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.filters.temporal_status = status(value)?;
        Ok(())
    },
};

pub(super) const APP_ROOT: Annotation = Annotation {
    name: "app-root",
    nginx: &["app-root"],
    value: "a path",
    doc: "Answer requests of `/` with 302 to this path. Default: none.",
    example: "/app",
    closes: Closes::Nothing,
    apply: |policy, value| {
        if !value.starts_with('/') {
            return Err("it does not start with a slash".into());
        }
        policy.filters.app_root = Some(redirect_url(value)?.into());
        Ok(())
    },
};

fn to(text: &str) -> Result<RedirectTo, String> {
    let (url, with_path) = match text.strip_suffix("$request_uri") {
        Some(url) => (url, true),
        None => (text, false),
    };
    if url.starts_with('/') {
        return Err("it has no host".into());
    }
    redirect_url(url)?;
    // A path behind `example.com` that is no path of its own could make another host of it: `example.com` + `.evil.test`. The
    // path of a request starts with a slash, so only what stands here must end with the host.
    let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    if with_path && after_scheme.contains(['/', '?', '#']) {
        return Err("$request_uri may only stand right behind the host".into());
    }
    Ok(RedirectTo::Url {
        url: url.into(),
        with_path,
    })
}

fn status(text: &str) -> Result<u16, String> {
    let status = text.parse().map_err(|_| "it is no number".to_owned())?;
    redirect_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_clients_are_sent() {
        for (text, expected) in [
            ("https://b.test", ("https://b.test", false)),
            ("https://b.test/x?y", ("https://b.test/x?y", false)),
            ("https://b.test$request_uri", ("https://b.test", true)),
        ] {
            let (url, with_path) = (expected.0.into(), expected.1);
            assert_eq!(to(text), Ok(RedirectTo::Url { url, with_path }));
        }
        for bad in [
            "/x",
            "b.test",
            "https://b.test/$request_uri",
            "https://b.test?x=$request_uri",
            "https://$host$request_uri",
            "$request_uri",
            "https://b.test/x\r\ny: z",
        ] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }
}
