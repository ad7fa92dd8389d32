//! What an endpoint is told of the client before anything else.

use super::{Annotation, Closes};
use routing_table::ProxyVersion;

pub(super) const UPSTREAM_PROXY_PROTOCOL: Annotation = Annotation {
    name: "upstream-proxy-protocol",
    nginx: &[],
    value: "`v1` or `v2`",
    doc: "Begin each connection to an endpoint with a header of the PROXY protocol that names the client. Such a connection \
          carries one request. All Ingresses of a Service's port must agree; the oldest is followed. Default: no header.",
    example: "v2",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.proxy_header = Some(match value {
            "v1" => ProxyVersion::V1,
            "v2" => ProxyVersion::V2,
            _ => return Err("there is no such version".to_owned()),
        });
        Ok(())
    },
};
