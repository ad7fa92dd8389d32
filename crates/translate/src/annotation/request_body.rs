//! How large a request may be.

use super::value::size;
use super::{Annotation, Closes};

pub(super) const MAX_REQUEST_BODY: Annotation = Annotation {
    name: "max-request-body",
    nginx: &["proxy-body-size"],
    value: "a size (`8m`, `512k`, `1Gi`, bytes), or `0` for no limit",
    doc: "Largest request body; 413 beyond it. Default 1m.",
    example: "8m",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.limits.request_body = Some(size(value)?).filter(|bytes| *bytes > 0);
        Ok(())
    },
};
