//! A request as it will go upstream: one normal form of host and path, decided once, used to route and to forward.

use crate::client::ClientConnection;
use crate::client_certificate;
use crate::error::ProxyError;
use crate::forwarded_headers::{self, Client};
use crate::h1::request::MAX_FIELDS;
use crate::record::RequestInfo;
use crate::upgrade::Upgrade;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version, request};
use routing_table::filter::ChangedFields;
use routing_table::matcher::host::normal_host;
use routing_table::matcher::path::normal_path;
use routing_table::{RequestFields, Route};
use std::borrow::Cow;

/// Where a request wants to go, checked.
#[derive(Debug)]
pub(crate) struct RequestTarget<'a> {
    /// The authority as the client wrote it, for the upstream.
    pub(crate) authority: &'a str,
    /// The host in normal form, for routing.
    pub(crate) host: Cow<'a, str>,
    /// The path in normal form, for both; from the filters of the route on, for the upstream.
    pub(crate) path: Cow<'a, str>,
    query: Option<&'a str>,
    client: &'a ClientConnection,
    /// A WebSocket is asked for.
    pub(crate) upgrade: Option<Upgrade>,
    /// What filters want the upstream to be told otherwise.
    pub(crate) changes: Option<Box<Changes>>,
}

/// What the upstream is told otherwise than the client said it.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The authority.
    pub(crate) host: Option<Box<str>>,
    /// The client's fields.
    pub(crate) headers: Option<ChangedFields>,
}

impl<'a> RequestTarget<'a> {
    /// Reads the target of a request. `has_body`: there is a body, or may be one.
    ///
    /// # Errors
    /// Whatever has no single reading: see [`ProxyError::BadHost`], [`ProxyError::BadTarget`], [`ProxyError::Method`].
    pub(crate) fn read(
        client: &'a ClientConnection,
        parts: &'a request::Parts,
        has_body: bool,
    ) -> Result<Self, ProxyError> {
        let method = &parts.method;
        let upgrade = Upgrade::asked(parts, has_body)?;
        if (*method == Method::CONNECT && upgrade.is_none())
            || *method == Method::TRACE
            || method.as_str() == "TRACK"
        {
            return Err(ProxyError::Method);
        }
        let (authority, host) = check(client, parts)?;
        let path = normal_path(parts.uri.path()).map_err(|_| ProxyError::BadTarget)?;
        Ok(Self {
            authority,
            host,
            path,
            query: parts.uri.query().map(checked_query).transpose()?,
            client,
            upgrade,
            changes: None,
        })
    }

    /// The query.
    pub(crate) fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The authority that the upstream is asked for.
    fn upstream_authority(&self) -> &str {
        let changes = self.changes.as_ref();
        changes
            .and_then(|changes| changes.host.as_deref())
            .unwrap_or(self.authority)
    }

    /// The names of fields that filters and hooks have decided on, which the client may not send in its trailers either. Gives them
    /// away: to be asked once.
    pub(crate) fn take_decided(&mut self) -> Vec<HeaderName> {
        let changes = self.changes.as_mut();
        let changed = changes.and_then(|changes| changes.headers.as_mut());
        changed.map_or_else(Vec::new, |changed| std::mem::take(&mut changed.decided))
    }

    /// What it is routed by besides host and path, as the upstream sees it.
    pub(crate) fn fields<'p>(&'p self, parts: &'p request::Parts) -> RequestFields<'p> {
        RequestFields {
            method: match self.upgrade {
                Some(_) => &Method::GET,
                None => &parts.method,
            },
            headers: &parts.headers,
            query: self.query,
            client: self.client,
        }
    }

    /// The method of the request as the upstream sees it.
    pub(crate) fn method(&self, request: &RequestInfo) -> Method {
        match self.upgrade {
            // RFC 8441 section 5: what is CONNECT on an HTTP/2 stream is GET on an HTTP/1.1 connection.
            Some(_) => Method::GET,
            None => request.parts.method.clone(),
        }
    }

    /// The head of the request for HTTP/2: the same fields as for HTTP/1.1, but those that it has in another form.
    ///
    /// # Errors
    /// When the target is more than a URI may be.
    pub(crate) fn http2(
        &self,
        request: &RequestInfo,
        route: &Route,
        tls: bool,
    ) -> Result<http::Request<()>, http::Error> {
        let path = match self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(&*self.path),
        };
        let uri = Uri::builder()
            .scheme(if tls { "https" } else { "http" })
            .authority(self.upstream_authority())
            .path_and_query(&*path)
            .build()?;
        let mut head = http::Request::new(());
        *head.method_mut() = self.method(request);
        *head.uri_mut() = uri;
        *head.version_mut() = Version::HTTP_2;
        let mut lines = Vec::new();
        self.write_fields(&mut lines, request, route);
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let mut parts = line.trim_ascii_end().splitn(2, |byte| *byte == b':');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                continue;
            };
            let name = HeaderName::from_bytes(name)?;
            if name != header::HOST {
                let value = HeaderValue::from_bytes(value.trim_ascii_start())?;
                head.headers_mut().append(name, value);
            }
        }
        if accepts_trailers(&request.parts.headers) {
            // RFC 9113 section 8.2.2: the only value that TE may have. gRPC servers ask for it.
            head.headers_mut()
                .insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Ok(head)
    }

    /// Writes request line and fields as HTTP/1.1, without framing and without the empty line.
    pub(crate) fn write(&self, out: &mut Vec<u8>, request: &RequestInfo, route: &Route) {
        out.extend_from_slice(self.method(request).as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.path.as_bytes());
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.write_fields(out, request, route);
    }

    /// Writes the fields that go upstream, as lines.
    fn write_fields(&self, out: &mut Vec<u8>, request: &RequestInfo, route: &Route) {
        let client = &request.client;
        let certificate_fields = route.client_certificates.is_some();
        let client = Client {
            addr: &client.addr_text,
            trusted: client.trusted,
            trusted_networks: &request.worker.settings.trusted_proxies,
            scheme: client.scheme,
            port: client.port,
            certificate_fields,
        };
        let changes = self.changes.as_ref();
        let headers = changes
            .and_then(|changes| changes.headers.as_ref())
            .map_or(&request.parts.headers, |changed| &changed.fields);
        let mut headers = Cow::Borrowed(headers);
        if self.upgrade == Some(Upgrade::Http2) && headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            // RFC 8441 section 5: it means nothing there, and the endpoint gets one of ours.
            headers.to_mut().remove(header::SEC_WEBSOCKET_KEY);
        }
        forwarded_headers::write_fields(
            out,
            &headers,
            self.upstream_authority(),
            self.authority,
            client,
            request.id.as_bytes(),
        );
        let demand = route.client_certificates.as_ref();
        client_certificate::write_fields(out, request.client.tls.get(), demand);
        if let Some(upgrade) = self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
            if upgrade == Upgrade::Http2 {
                // RFC 8441 section 5: the client sent none. It only has to be 16 bytes in base64, so that no cache answers.
                out.extend_from_slice(b"sec-websocket-key: ");
                out.extend_from_slice(&request.id.as_bytes()[..22]);
                out.extend_from_slice(b"==\r\n");
            }
        }
    }
}

/// What every request is asked for, whatever its target: its fields, its scheme, and its authority, which it gives with its normal form.
///
/// # Errors
/// [`ProxyError::TooManyFields`], [`ProxyError::BadField`], [`ProxyError::BadTarget`], [`ProxyError::BadHost`].
pub(crate) fn check<'a>(
    client: &ClientConnection,
    parts: &'a request::Parts,
) -> Result<(&'a str, Cow<'a, str>), ProxyError> {
    check_fields(&parts.headers)?;
    // Only a proxy that we trust may have taken TLS off the request (RFC 9113 section 8.3.1).
    let scheme = parts.uri.scheme_str();
    if scheme.is_some_and(|scheme| {
        scheme != client.scheme && !(client.trusted && matches!(scheme, "http" | "https"))
    }) {
        return Err(ProxyError::BadTarget);
    }
    authority(
        &parts.uri,
        &parts.headers,
        parts.version == Version::HTTP_11,
    )
}

/// Whether the client takes trailer fields (RFC 9110 section 10.1.4).
pub(crate) fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Limits that hold for every protocol, and fields that two readers would take differently when they are repeated.
fn check_fields(headers: &HeaderMap) -> Result<(), ProxyError> {
    // `len` counts lines, and with them the crumbs of a cookie.
    if headers.len() > MAX_FIELDS {
        return Err(ProxyError::TooManyFields);
    }
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    if authorization.next().is_some() && authorization.next().is_some() {
        return Err(ProxyError::BadField);
    }
    Ok(())
}

/// Browsers send all of visible ASCII in a query but for `"`, `#`, `<` and `>`; nothing sends more than that bare.
fn checked_query(query: &str) -> Result<&str, ProxyError> {
    let fine = |byte: u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'#' | b'<' | b'>');
    if query.bytes().all(fine) {
        Ok(query)
    } else {
        Err(ProxyError::BadTarget)
    }
}

/// The authority and its normal form. HTTP/1.1 has it in exactly one `Host` field, HTTP/2 in `:authority`; where both are
/// there, or the target is in absolute form, they must name the same host (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn authority<'a>(
    uri: &'a Uri,
    headers: &'a HeaderMap,
    http1: bool,
) -> Result<(&'a str, Cow<'a, str>), ProxyError> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(ProxyError::BadHost),
        (field, None) => field
            .map(|value| value.to_str().map_err(|_| ProxyError::BadHost))
            .transpose()?,
    };
    let target = uri.authority().map(|authority| authority.as_str());
    if http1 && target.is_some() && field.is_none() {
        // RFC 9112 section 3.2: also where the target names the host.
        return Err(ProxyError::BadHost);
    }
    let normal = |authority: &'a str| normal_host(authority).map_err(|_| ProxyError::BadHost);
    match (target, field) {
        (None, None) => Err(ProxyError::BadHost),
        (Some(only), None) | (None, Some(only)) => Ok((only, normal(only)?)),
        (Some(target), Some(field)) => {
            let host = normal(target)?;
            if host == normal(field)? {
                Ok((target, host))
            } else {
                Err(ProxyError::BadHost)
            }
        }
    }
}
