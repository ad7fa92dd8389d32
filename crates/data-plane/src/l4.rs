//! Layer 4: bytes that are passed on as they are.
//!
//! `target` is where to, `tcp` relays a connection by way of two `flow`s, `udp` keeps sessions. What happened to one of them is a `record`. Probing
//! endpoints that speak no HTTP will have its place here too.

pub(crate) mod flow;
mod record;
pub(crate) mod target;
pub(crate) mod tcp;
pub(crate) mod udp;
