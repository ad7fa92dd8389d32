//! Layer 4: bytes that are passed on as they are.
//!
//! `target` is where to, `tcp` relays a connection by way of two `flow`s, `udp` keeps sessions, `passthrough` looks for
//! the server name in a `client_hello` and relays or hands over to TLS. What happened to one of them is a `record`. Probing
//! endpoints that speak no HTTP will have its place here too.

pub(crate) mod client_hello;
pub(crate) mod flow;
mod own;
pub(crate) mod passthrough;
#[cfg(test)]
pub(crate) use client_hello::tests as client_hello_tests;
mod record;
pub(crate) mod target;
pub(crate) mod tcp;
pub(crate) mod udp;
