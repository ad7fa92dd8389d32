//! Who may ask the admin port, and how its bytes go over the wire: a bearer token, TLS, both or neither.

use crate::args::AdminArgs;
use crate::followed::follow;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, header};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Shortest token. One that can be guessed protects nothing.
const LEAST_TOKEN: usize = 16;
/// Longest TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// Who may ask, and how. The default is everybody, in plain.
#[derive(Default)]
pub(crate) struct Access {
    token: Option<watch::Receiver<Vec<u8>>>,
    /// `/metrics` asks for it too.
    for_metrics: bool,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
}

impl Access {
    /// Reads the files that the flags name, and follows them until `shutdown`. Must be called on a runtime.
    ///
    /// # Errors
    /// When one cannot be used; the error names its flag.
    pub(crate) fn new(args: &AdminArgs, shutdown: &CancellationToken) -> anyhow::Result<Self> {
        // A token that is none is a mistake of whoever wrote it; a file that cannot be read may only be missing yet.
        if let Some(file) = &args.token_file
            && let Ok(read) = std::fs::read(file)
            && let Err(why) = token(&[read])
        {
            let message = format!("cannot use the token of --admin-token-file: {why}");
            return Err(crate::UsageError(message).into());
        }
        let token = args.token_file.clone().map(|file| {
            let make = |read: &[Vec<u8>]| token(read);
            let what = "the token of --admin-token-file";
            follow(what, vec![file], make, shutdown.clone())
        });
        let tls = args.tls_cert.clone().zip(args.tls_key.clone());
        let tls = tls.map(|(chain, key)| {
            let names = [chain.display().to_string(), key.display().to_string()];
            let make = move |read: &[Vec<u8>]| tls_config(read, &names);
            let what = "the certificate of --admin-tls-cert";
            follow(what, vec![chain, key], make, shutdown.clone())
        });
        Ok(Self {
            token: token.transpose()?,
            for_metrics: args.token_for_metrics,
            tls: tls.transpose()?,
        })
    }

    /// Whether a token is asked for.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// What a request must be told that may not have what it asks for (RFC 6750 section 3); `None` if it may.
    pub(super) fn challenge(&self, path: &str, headers: &HeaderMap) -> Option<HeaderValue> {
        let token = self.token.as_ref()?;
        let is_open = match path {
            // Probes have no token, and what they learn a port scan tells as well.
            "/healthz" | "/readyz" => true,
            "/metrics" => !self.for_metrics,
            _ => false,
        };
        if is_open {
            return None;
        }
        let Some(shown) = headers.get(header::AUTHORIZATION).and_then(bearer) else {
            return Some(HeaderValue::from_static("Bearer realm=\"tidegate\""));
        };
        match verify_slices_are_equal(shown, &token.borrow()) {
            Ok(()) => None,
            Err(_) => Some(HeaderValue::from_static(
                "Bearer realm=\"tidegate\", error=\"invalid_token\"",
            )),
        }
    }

    /// Makes a TLS session on a connection, where that is spoken. `None` when it fails, or takes too long.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<Box<dyn Stream>> {
        let Some(config) = self.tls.as_ref().map(|tls| Arc::clone(&tls.borrow())) else {
            return Some(Box::new(stream));
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let made = tokio::time::timeout(HANDSHAKE_TIME, handshake).await;
        Some(Box::new(made.ok()?.ok()?))
    }
}

/// A connection, whatever its bytes go through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The token that a request shows. The scheme is in any case (RFC 9110 section 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    is_bearer.then(|| token.trim_ascii())
}

/// Reads a token.
fn token(read: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let text = read.first().map_or(&[][..], |text| text.trim_ascii());
    if text.len() < LEAST_TOKEN {
        return Err(format!(
            "it has {} characters, {LEAST_TOKEN} are the least",
            text.len()
        ));
    }
    // Anything else cannot be shown in a header field.
    if !text.iter().all(u8::is_ascii_graphic) {
        return Err("it has more than visible ASCII characters on one line".to_owned());
    }
    Ok(text.to_vec())
}

fn tls_config(read: &[Vec<u8>], names: &[String; 2]) -> Result<Arc<ServerConfig>, String> {
    let [chain, key] = read else {
        return Err("it has no key".to_owned());
    };
    let [chain_name, key_name] = names;
    let pair = certificates::pair(chain, key, chain_name, key_name, chain_name.as_str().into())?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            let config = config.with_no_client_auth();
            config.with_single_cert(pair.chain, pair.key)
        });
    let mut config = config.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn tokens_are_long_and_visible() {
        let read = |text: &str| token(&[text.as_bytes().to_vec()]);
        assert_eq!(read("0123456789abcdef\n"), Ok(TOKEN.as_bytes().to_vec()));
        assert!(read("0123456789abcde\n").is_err_and(|why| why.contains("15 characters")));
        assert!(read("").is_err());
        assert!(read("0123456789abcdef\n0123456789abcdef").is_err());
    }

    #[test]
    fn who_shows_no_token_gets_what_is_open() {
        let (_sender, receiver) = watch::channel(TOKEN.as_bytes().to_vec());
        let mut access = Access {
            token: Some(receiver),
            ..Access::default()
        };
        let challenge = |access: &Access, path: &str, shown: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(shown) = shown {
                headers.insert(header::AUTHORIZATION, shown.parse().unwrap());
            }
            let challenge = access.challenge(path, &headers);
            challenge.map(|challenge| challenge.to_str().unwrap().contains("invalid_token"))
        };
        for open in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(challenge(&access, open, None), None, "{open}");
        }
        for path in [
            "/backends",
            "/profile",
            "/backends/a/b:0/c",
            "/",
            "/readyz/",
        ] {
            assert_eq!(challenge(&access, path, None), Some(false), "{path}");
        }
        for (shown, expected) in [
            ("Bearer 0123456789abcdef", None),
            ("bearer  0123456789abcdef", None),
            ("Bearer 0123456789abcdeg", Some(true)),
            ("Bearer 0123456789abcdef0", Some(true)),
            ("Bearer ", Some(true)),
            ("Basic 0123456789abcdef", Some(false)),
            ("0123456789abcdef", Some(false)),
        ] {
            assert_eq!(
                challenge(&access, "/backends", Some(shown)),
                expected,
                "{shown}"
            );
        }
        access.for_metrics = true;
        assert_eq!(challenge(&access, "/metrics", None), Some(false));
        assert_eq!(challenge(&access, "/readyz", None), None);
        assert_eq!(challenge(&Access::default(), "/backends", None), None);
    }
}
