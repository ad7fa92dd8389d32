//! Which fields of an endpoint's answer are for the client, whichever protocol the answer came by.

use crate::h1::head::HeadError;
use crate::h1::{self, head::MAX_FIELDS};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

/// The last status there is (RFC 9110 section 15).
pub(crate) const LAST_STATUS: u16 = 599;

/// Whether a field ends with us: it belongs to the connection (RFC 9110 section 7.6.1), or is ours to say: who answers, and where
/// else; and what an endpoint asks of a proxy is not for the client.
pub(crate) fn ends_here(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::TE
            | header::TRAILER
            | header::SERVER
            | header::ALT_SVC
            | header::PROXY_AUTHENTICATE
    ) || matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "http2-settings"
    )
}

/// Fields about framing, routing, the connection, authentication, the request's meaning or the content's form are not taken
/// from behind a body, where nobody looked when the decision was made (RFC 9110 section 6.5.1). Of requests neither.
pub(crate) fn may_be_trailer(name: &HeaderName) -> bool {
    !ends_here(name)
        && !matches!(
            *name,
            header::CONTENT_LENGTH
                | header::HOST
                | header::EXPECT
                | header::MAX_FORWARDS
                | header::AUTHORIZATION
                | header::PROXY_AUTHORIZATION
                | header::WWW_AUTHENTICATE
                | header::COOKIE
                | header::SET_COOKIE
                | header::CACHE_CONTROL
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::RANGE
                | header::LOCATION
                | header::DATE
                | header::AGE
                | header::VARY
                | header::FORWARDED
        )
        && !name.as_str().starts_with("x-forwarded-")
        && name.as_str() != "x-real-ip"
}

/// What the lines of `Content-Length` say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Length {
    pub(crate) value: Option<u64>,
    /// They are one line, without leading zeros: what the client is told.
    pub(crate) plain: bool,
}

impl Length {
    /// Another line, which must say the same as those before (RFC 9110 section 8.6).
    pub(crate) fn agree(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let length = h1::decimal(line).ok_or(HeadError::Framing)?;
        match self.value.replace(length) {
            Some(before) if before != length => return Err(HeadError::Framing),
            Some(_) => self.plain = false,
            None => self.plain = *line == *itoa::Buffer::new().format(length).as_bytes(),
        }
        Ok(())
    }
}

/// Whether an answer has no content, whatever its fields say (RFC 9110 section 6.4.1).
pub(crate) fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || has_no_content(status)
}

/// As [`is_bodiless`], whatever was asked for.
pub(crate) fn has_no_content(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether an answer has no `Content-Length` either (RFC 9110 section 8.6).
pub(crate) fn is_lengthless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status.is_informational()
}

/// Makes of the fields of an answer by HTTP/2 what is left of them by HTTP/1.1, and refuses what is refused there.
pub(crate) fn check_http2(status: StatusCode, headers: &mut HeaderMap) -> Result<(), HeadError> {
    if status.is_informational() || status.as_u16() > LAST_STATUS {
        return Err(HeadError::Status);
    }
    // `len` counts lines.
    if headers.len() > MAX_FIELDS {
        return Err(HeadError::TooLarge);
    }
    while let Some(name) = headers.keys().find(|name| ends_here(name)).cloned() {
        headers.remove(name);
    }
    if is_lengthless(status) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let mut length = Length::default();
    for line in headers.get_all(header::CONTENT_LENGTH) {
        length.agree(line.as_bytes())?;
    }
    if let Some(length) = length.value.filter(|_| !length.plain) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(())
}

/// Takes from the trailers of an answer by HTTP/2 what none by HTTP/1.1 has.
pub(crate) fn check_http2_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| !may_be_trailer(name));
}

/// Removes the fields of these names. Allocates only where there are any.
pub(crate) fn remove_where(fields: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names = fields.keys().filter(|name| unwanted(name));
    let names: Vec<_> = names.cloned().collect();
    for name in names {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        lines.collect()
    }

    #[track_caller]
    fn check(
        status: u16,
        lines: &[(&'static str, &'static str)],
        expected: Result<&[(&'static str, &'static str)], HeadError>,
    ) {
        let mut headers = fields(lines);
        let checked = check_http2(StatusCode::from_u16(status).unwrap(), &mut headers);
        assert_eq!(
            checked.map(|()| headers),
            expected.map(fields),
            "{status} {lines:?}"
        );
    }

    #[test]
    fn an_answer_by_http2_is_what_one_by_http1_would_be() {
        let length = |value| [("content-length", value)];
        check(200, &length("5"), Ok(&length("5")));
        check(200, &length("002"), Ok(&length("2")));
        check(304, &length("5"), Ok(&length("5")));
        check(204, &length("5"), Ok(&[]));
        check(200, &length("+5"), Err(HeadError::Framing));
        let twice = [("content-length", "5"), ("content-length", "6")];
        check(200, &twice, Err(HeadError::Framing));
        let same = [("content-length", "5"), ("content-length", "05")];
        check(200, &same, Ok(&length("5")));
        check(999, &[], Err(HeadError::Status));
        check(600, &[], Err(HeadError::Status));
        check(101, &[], Err(HeadError::Status));
        check(599, &[("x-a", "b")], Ok(&[("x-a", "b")]));
        let ours = [
            ("server", "x"),
            ("alt-svc", "x"),
            ("proxy-authenticate", "x"),
            ("http2-settings", "x"),
            ("trailer", "x"),
            ("keep-alive", "x"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ];
        check(200, &ours, Ok(&ours[6..]));
        check(
            200,
            &[("a", "b"); MAX_FIELDS],
            Ok(&[("a", "b"); MAX_FIELDS]),
        );
        check(200, &[("a", "b"); MAX_FIELDS + 1], Err(HeadError::TooLarge));
    }

    #[test]
    fn trailers_of_a_call_stay_and_others_go() {
        let call = [
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("x-own-bin", "AAE"),
        ];
        let refused = [
            ("content-length", "5"),
            ("host", "b.test"),
            ("set-cookie", "a=1"),
            ("server", "x"),
            ("alt-svc", "x"),
        ];
        let mut trailers = fields(&[&refused[..], &call[..]].concat());
        check_http2_trailers(&mut trailers);
        assert_eq!(trailers, fields(&call));
    }
}
