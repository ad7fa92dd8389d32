//! Tells clients which endpoint answered.

use super::{Annotation, Closes};
use http::HeaderName;
use routing_table::filter::may_be_changed;

pub(super) const UPSTREAM_HEADER: Annotation = Annotation {
    name: "upstream-header",
    nginx: &[],
    value: "the name of a header field",
    doc: "Tell clients in this field of the answer which endpoint gave it (`10.0.0.7:8080`). It shows the inside to whoever \
          asks. Default: none.",
    example: "upstream",
    closes: Closes::Nothing,
    apply: |policy, value| {
        let name = HeaderName::from_bytes(value.as_bytes()).map_err(|error| error.to_string())?;
        if !may_be_changed(&name) {
            return Err("this field cannot be set".into());
        }
        policy.filters.upstream_header = Some(name);
        Ok(())
    },
};
