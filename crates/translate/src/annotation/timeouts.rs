//! Time limits towards endpoints.

use super::value::DURATION;
use super::{Annotation, Closes, Policy};
use policy::value::duration;

pub(super) const CONNECT_TIMEOUT: Annotation = Annotation {
    name: "connect-timeout",
    nginx: &["proxy-connect-timeout"],
    value: DURATION,
    doc: "Time to connect to one endpoint. Default 2s.",
    example: "5s",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.timeouts.connect = duration(value)?;
        Ok(())
    },
};

pub(super) const FIRST_BYTE_TIMEOUT: Annotation = Annotation {
    name: "first-byte-timeout",
    nginx: &["proxy-read-timeout"],
    value: DURATION,
    doc: "Time from the end of the request to the first byte of the answer; 504 beyond it. Default 60s.",
    example: "30s",
    closes: Closes::Nothing,
    apply: |policy, value| {
        policy.timeouts.first_byte = duration(value)?;
        Ok(())
    },
};

pub(super) const IDLE_TIMEOUT: Annotation = Annotation {
    name: "idle-timeout",
    nginx: &["proxy-read-timeout", "proxy-send-timeout"],
    value: DURATION,
    doc: "Time between two reads or two writes of a body, so a stream lives as long as bytes flow. Default 60s.",
    example: "10m",
    closes: Closes::Nothing,
    apply: |policy: &mut Policy, value| {
        policy.timeouts.idle = duration(value)?;
        Ok(())
    },
};
