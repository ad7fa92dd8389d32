//! Everything that can go wrong with a request, and the one table that says what the client is told.

use crate::h1::head::HeadError;
use crate::h1::request::RequestError;
use http::StatusCode;

/// Why a request was not answered by an upstream, or not to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    /// What the client sent is no request.
    #[error("unreadable request: {0}")]
    Unreadable(RequestError),
    /// The client began a request and did not finish its head.
    #[error("request head timeout")]
    HeadTimeout,
    /// No `Host`, several, or one that is no host (RFC 9112 section 3.2).
    #[error("bad host")]
    BadHost,
    /// A target that has no single reading.
    #[error("bad request target")]
    BadTarget,
    /// A field that may stand once stands twice.
    #[error("repeated field")]
    BadField,
    /// More fields than a head may have.
    #[error("too many fields")]
    TooManyFields,
    /// A request for a WebSocket that is none (RFC 6455 section 4.2.1).
    #[error("bad upgrade")]
    BadUpgrade,
    /// A version of WebSocket other than 13.
    #[error("unsupported WebSocket version")]
    UpgradeVersion,
    /// CONNECT, TRACE, TRACK.
    #[error("method not allowed")]
    Method,
    /// No route for this host and path.
    #[error("no route")]
    NoRoute,
    /// The connection was made for another host, whose TLS is not good for this one (RFC 9110 section 15.5.20).
    #[error("misdirected request")]
    Misdirected,
    /// The host demands a client certificate, and there is none or one that it does not accept.
    #[error("client certificate refused")]
    ClientCertificate,
    /// The route does not serve this client's address.
    #[error("client address refused")]
    Forbidden,
    /// The client asks too often; it may again in so many seconds.
    #[error("rate limited")]
    RateLimited(u32),
    /// The cluster has no endpoint.
    #[error("no endpoint")]
    NoEndpoint,
    /// Every endpoint has as many requests as it may, and too many wait already or this one has waited too long.
    #[error("overloaded")]
    Overloaded,
    /// The request came through us too often (RFC 8586).
    #[error("loop detected")]
    Loop,
    /// The body is larger than the route allows.
    #[error("request body too large")]
    BodyTooLarge,
    /// The client went away, or its body was malformed.
    #[error("client aborted")]
    ClientAborted,
    /// The client did not send its body.
    #[error("client body timeout")]
    ClientBodyTimeout,
    /// No connection to the endpoint.
    #[error("connect failed")]
    Connect,
    /// No connection to the endpoint in time.
    #[error("connect timeout")]
    ConnectTimeout,
    /// No TLS with the endpoint: it speaks none, or its certificate is not accepted.
    #[error("upstream TLS failed")]
    UpstreamTls,
    /// The endpoint closed the connection before it answered.
    #[error("upstream closed")]
    UpstreamClosed,
    /// The endpoint closed the connection in the middle of its answer.
    #[error("upstream cut the response short")]
    UpstreamCut,
    /// What the endpoint sent is no response.
    #[error("bad response: {0}")]
    BadResponse(HeadError),
    /// No answer in time.
    #[error("first byte timeout")]
    FirstByteTimeout,
    /// The answer stopped in the middle.
    #[error("idle timeout")]
    IdleTimeout,
    /// A defect of ours.
    #[error("panic")]
    Panic,
}

impl ProxyError {
    /// What the client is told.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Unreadable(error) => match error {
                RequestError::Malformed | RequestError::NotHttp | RequestError::Framing => {
                    StatusCode::BAD_REQUEST
                }
                RequestError::Coding => StatusCode::NOT_IMPLEMENTED,
                RequestError::TargetTooLong => StatusCode::URI_TOO_LONG,
                RequestError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                RequestError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                RequestError::Expectation => StatusCode::EXPECTATION_FAILED,
                RequestError::Length => StatusCode::PAYLOAD_TOO_LARGE,
            },
            Self::BadHost
            | Self::BadTarget
            | Self::BadField
            | Self::BadUpgrade
            | Self::ClientCertificate
            | Self::ClientAborted => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::UpgradeVersion => StatusCode::UPGRADE_REQUIRED,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimeout | Self::ClientBodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoEndpoint | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Connect
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamCut
            | Self::BadResponse(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::IdleTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// Why, in one word, for the access log and metrics.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::HeadTimeout => "head_timeout",
            Self::BadField => "bad_field",
            Self::BadUpgrade => "bad_upgrade",
            Self::UpgradeVersion => "upgrade_version",
            Self::TooManyFields => "too_many_fields",
            Self::BadHost => "bad_host",
            Self::BadTarget => "bad_target",
            Self::Method => "method",
            Self::NoRoute => "no_route",
            Self::Misdirected => "misdirected",
            Self::ClientCertificate => "client_certificate",
            Self::Forbidden => "forbidden",
            Self::RateLimited(_) => "rate_limited",
            Self::NoEndpoint => "no_endpoint",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientAborted => "client_aborted",
            Self::ClientBodyTimeout => "client_body_timeout",
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamCut => "upstream_cut",
            Self::BadResponse(_) => "bad_response",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Panic => "panic",
        }
    }

    /// Whether the connection to the client must end with this answer, because its next request cannot be told from what
    /// is left of this one.
    pub(crate) fn closes_downstream(self) -> bool {
        matches!(
            self,
            Self::Unreadable(_)
                | Self::HeadTimeout
                | Self::BadHost
                | Self::BadTarget
                | Self::BadField
                | Self::TooManyFields
                | Self::BadUpgrade
                | Self::UpgradeVersion
                | Self::Method
                | Self::BodyTooLarge
                | Self::ClientAborted
                | Self::ClientBodyTimeout
                | Self::ClientCertificate
                | Self::Panic
        )
    }
}
