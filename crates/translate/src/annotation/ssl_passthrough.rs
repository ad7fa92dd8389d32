//! TLS that the endpoint does itself.

use super::{Annotation, Closes};

pub(super) const SSL_PASSTHROUGH: Annotation = Annotation {
    name: "ssl-passthrough",
    nginx: &["ssl-passthrough"],
    value: "`true` or `false`",
    doc: "Pass TLS connections for the hosts of the Ingress on to the backend of path `/` as they are, found by server name. \
          Of what else the Ingress asks for only `allow` and `deny` apply to them; without TLS its routes answer 503. Needs \
          `--enable-ssl-passthrough`; without it they answer 503 with TLS too. Default false.",
    example: "false",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.passthrough = match value {
            "true" => true,
            "false" => false,
            _ => return Err("it is neither".to_owned()),
        };
        Ok(())
    },
};
