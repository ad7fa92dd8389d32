//! TLS that the endpoint does itself.

use super::value::{BOOLEAN, boolean};
use super::{Annotation, Closes};

pub(super) const SSL_PASSTHROUGH: Annotation = Annotation {
    name: "ssl-passthrough",
    nginx: &["ssl-passthrough"],
    value: BOOLEAN,
    doc: "Pass TLS connections for the hosts of the Ingress on to the backend of path `/` as they are, found by server name. \
          Of what else the Ingress asks for only `allow` and `deny` apply to them; without TLS its routes answer 503. Needs \
          `--enable-ssl-passthrough`; without it they answer 503 with TLS too. Default false.",
    example: "false",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.passthrough = boolean(value)?;
        Ok(())
    },
};
