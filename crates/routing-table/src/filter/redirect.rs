//! Sends clients elsewhere. Where is declared, or is the same host: nothing that a client sends makes it point to another one.

use super::{ApplyFilter, Ending, Passage};
use crate::matcher::path::normal_path;
use http::{HeaderValue, Uri};
use std::fmt;
use std::ops::ControlFlow;

/// What certificate authorities ask for without TLS, and must get.
pub const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Where.
    pub to: RedirectTo,
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectTo {
    /// The same host, path and query by https; requests that came by it go on, and so do challenges of ACME.
    Https {
        /// 443 is not written.
        port: u16,
    },
    /// A path of the same host, for requests of `/`; all others go on.
    FromRoot(Box<str>),
    /// An absolute URL.
    Url {
        /// As it is sent.
        url: Box<str>,
        /// Path and query of the request are put behind it.
        with_path: bool,
    },
}

impl Redirect {
    fn location(&self, passage: &Passage<'_>) -> Option<String> {
        let (path, query) = (&passage.path, passage.query);
        let question = if query.is_some() { "?" } else { "" };
        let query = query.unwrap_or_default();
        match &self.to {
            RedirectTo::Https { .. } if passage.is_https || path.starts_with(ACME_CHALLENGE) => {
                None
            }
            RedirectTo::Https { port: 443 } => {
                Some(format!("https://{}{path}{question}{query}", passage.host))
            }
            RedirectTo::Https { port } => Some(format!(
                "https://{}:{port}{path}{question}{query}",
                passage.host
            )),
            RedirectTo::FromRoot(to) => (path == "/").then(|| to.to_string()),
            RedirectTo::Url {
                url,
                with_path: true,
            } => Some(format!("{url}{path}{question}{query}")),
            RedirectTo::Url { url, .. } => Some(url.to_string()),
        }
    }
}

impl ApplyFilter for Redirect {
    fn on_request<'a>(&'a self, passage: &mut Passage<'a>) -> ControlFlow<Ending> {
        let Some(location) = self.location(passage) else {
            return ControlFlow::Continue(());
        };
        ControlFlow::Break(match HeaderValue::try_from(location) {
            Ok(location) => Ending::Redirect {
                status: self.status,
                location,
            },
            Err(_) => Ending::BadTarget,
        })
    }
}

/// Reads a status of redirection.
///
/// # Errors
/// What is wrong with it, in words.
pub fn redirect_status(status: u16) -> Result<u16, String> {
    match status {
        301 | 302 | 303 | 307 | 308 => Ok(status),
        _ => Err(format!("{status} is none of 301, 302, 303, 307, 308")),
    }
}

/// Reads an absolute URL of http or https, or a path of the same host.
///
/// # Errors
/// What is wrong with it, in words.
pub fn redirect_url(text: &str) -> Result<&str, String> {
    if text.contains(['$', '\\']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it has a character that no URL has, or a variable".into());
    }
    if text.starts_with('/') {
        let path = text.split(['?', '#']).next().unwrap_or(text);
        if text.starts_with("//") {
            return Err("it would lead to another host".into());
        }
        return normal_path(path)
            .map(|_| text)
            .map_err(|error| error.to_string());
    }
    let uri: Uri = text.parse().map_err(|_| "it is no URL".to_owned())?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match uri.scheme_str() {
        Some("http" | "https") if !authority.is_empty() && !authority.contains('@') => Ok(text),
        _ => Err("it is no absolute URL of http or https".into()),
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redirect={}:", self.status)?;
        match &self.to {
            RedirectTo::Https { port: 443 } => f.write_str("https"),
            RedirectTo::Https { port } => write!(f, "https:{port}"),
            RedirectTo::FromRoot(to) => write!(f, "root:{to}"),
            RedirectTo::Url { url, with_path } => {
                write!(f, "{url}{}", if *with_path { "+path" } else { "" })
            }
        }
    }
}
