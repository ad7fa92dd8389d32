//! Asks the upstream for another path or host than the client did.
//!
//! The result is as strict as what came in: whatever has no single reading is refused, so a path that was put together of two
//! harmless pieces cannot climb (`..`) or name a host (`//`). The query stays as it is.

use super::{ApplyFilter, Ending, Passage};
use crate::matcher::PathMatch;
use crate::matcher::path::normal_path;
use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

/// What the upstream is asked for instead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UrlRewrite {
    /// Another path.
    pub path: Option<PathRewrite>,
    /// Another `Host`; `X-Forwarded-Host` says what the client asked for.
    pub host: Option<Box<str>>,
}

/// How the path is changed. All paths are in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// This path, whatever was asked for.
    Whole(Box<str>),
    /// What the route matched is replaced by this; no trailing slash, `/` is the empty string.
    Prefix(Box<str>),
    /// This is put in front of what was asked for; no trailing slash.
    Base(Box<str>),
}

impl PathRewrite {
    /// A replaced prefix.
    pub fn prefix(path: &str) -> Self {
        Self::Prefix(path.strip_suffix('/').unwrap_or(path).into())
    }

    /// A base path.
    pub fn base(path: &str) -> Self {
        Self::Base(path.strip_suffix('/').unwrap_or(path).into())
    }
}

/// The rewritten path has no single reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl UrlRewrite {
    /// The path that the upstream is asked for; `None` where that is the one asked for.
    pub fn apply(&self, matched: &PathMatch, path: &str) -> Option<Result<String, Unreadable>> {
        let new = match self.path.as_ref()? {
            PathRewrite::Whole(whole) => whole.to_string(),
            PathRewrite::Prefix(prefix) => {
                let rest = path.strip_prefix(matched.key()).unwrap_or(path);
                format!("{prefix}{rest}")
            }
            PathRewrite::Base(base) => format!("{base}{path}"),
        };
        Some(checked(new))
    }
}

fn checked(path: String) -> Result<String, Unreadable> {
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    if path.starts_with("//") {
        return Err(Unreadable);
    }
    match normal_path(&path) {
        Ok(Cow::Borrowed(_)) => Ok(path),
        Ok(Cow::Owned(normal)) if normal == path => Ok(path),
        _ => Err(Unreadable),
    }
}

impl ApplyFilter for UrlRewrite {
    fn on_request<'a>(&'a self, passage: &mut Passage<'a>) -> ControlFlow<Ending> {
        if let Some(host) = &self.host {
            passage.upstream_host = Some(host);
        }
        match self.apply(passage.matched, &passage.path) {
            None => {}
            Some(Ok(path)) => passage.path = Cow::Owned(path),
            Some(Err(Unreadable)) => return ControlFlow::Break(Ending::BadTarget),
        }
        ControlFlow::Continue(())
    }
}

impl fmt::Display for UrlRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_root = |path: &str| if path.is_empty() { "/" } else { path }.to_owned();
        match &self.path {
            None => {}
            Some(PathRewrite::Whole(path)) => write!(f, "path={path}")?,
            Some(PathRewrite::Prefix(path)) => write!(f, "prefix={}", or_root(path))?,
            Some(PathRewrite::Base(path)) => write!(f, "base={}", or_root(path))?,
        }
        if self.path.is_some() && self.host.is_some() {
            f.write_str(" ")?;
        }
        match &self.host {
            None => Ok(()),
            Some(host) => write!(f, "host={host}"),
        }
    }
}
