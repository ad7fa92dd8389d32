//! What gRPC asks of a proxy: its own form of our answers, and its own word for how long a call may take.
//! (gRPC over HTTP/2, `PROTOCOL-HTTP2` of the gRPC specification.)

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version, request};
use routing_table::Timeouts;
use std::time::Duration;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Whether a request is a gRPC call. Those are of HTTP/2: on HTTP/1.1 the media type alone would free a client of the limits of
/// every other body.
pub(crate) fn is_call(request: &request::Parts) -> bool {
    request.version == Version::HTTP_2 && has_media_type(&request.headers)
}

fn has_media_type(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(CONTENT_TYPE);
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// The timeouts of a call: where it says how long it may take, that is how long its first byte is waited for.
pub(crate) fn timeouts(headers: &HeaderMap, route: Timeouts) -> Timeouts {
    let told = headers.get(TIMEOUT);
    match told.and_then(|value| timeout(value.as_bytes())) {
        Some(first_byte) => Timeouts {
            first_byte,
            ..route
        },
        None => route,
    }
}

/// At most eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let number = crate::h1::decimal(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The fields of an answer of our own as a call understands it: status 200, and what went wrong in fields that stand for
/// trailers.
pub(crate) fn answer(status: StatusCode, message: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(STATUS, code(status).into());
    headers.insert(MESSAGE, HeaderValue::from_static(message));
    headers
}

/// The gRPC status for one of HTTP (`http-grpc-status-mapping` of the gRPC specification, and 413 as its servers have it).
fn code(status: StatusCode) -> u16 {
    match status {
        StatusCode::BAD_REQUEST => 13,
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 12,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<Duration>) {
        assert_eq!(timeout(value.as_bytes()), expected, "{value:?}");
    }

    #[test]
    fn how_long_a_call_may_take() {
        check("1S", Some(Duration::from_secs(1)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "-1S", "1s", "123456789S", "1 S"] {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_a_call() {
        let is = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            has_media_type(&headers)
        };
        assert!(
            is("application/grpc") && is("application/grpc+proto") && is("application/grpc; x=y")
        );
        assert!(!is("application/grpc-web") && !is("text/plain"));
    }
}
