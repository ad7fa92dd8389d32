//! What endpoints speak.

use super::{Annotation, Closes};
use routing_table::UpstreamProtocol;

pub(super) const BACKEND_PROTOCOL: Annotation = Annotation {
    name: "backend-protocol",
    nginx: &["backend-protocol"],
    value: "`HTTP`, `HTTPS`, `GRPC` or `GRPCS`",
    doc: "What endpoints speak: HTTP/1.1, or for gRPC HTTP/2; with an `S` through TLS, whose certificates are not verified unless \
          `upstream-tls-verify` says so, as in ingress-nginx. Default HTTP, or what the Service's port says in `appProtocol` \
          (`kubernetes.io/h2c`).",
    example: "GRPC",
    closes: Closes::Routes,
    apply: |policy, value| {
        let (protocol, tls) = match value.to_ascii_uppercase().as_str() {
            "" => return Ok(()),
            "HTTP" => (UpstreamProtocol::Http1, false),
            "HTTPS" => (UpstreamProtocol::Http1, true),
            "GRPC" => (UpstreamProtocol::Http2, false),
            "GRPCS" => (UpstreamProtocol::Http2, true),
            _ => return Err("this protocol is not supported".into()),
        };
        policy.upstream_protocol = Some(protocol);
        policy.upstream_tls.https = tls;
        Ok(())
    },
};
