//! HTTP/1.1 towards upstreams, driven on the task of the request it serves.
//!
//! hyper's client needs a second task per connection and a channel between the two; this codec needs neither, which is
//! worth about a tenth of a request's cost (`docs/decisions/002-own-upstream-codec.md`). It is also stricter: what an
//! upstream sends is framed by exactly one rule or refused.
//!
//! - [`head`]: reads a response head, decides how its body is framed (pure).
//! - [`chunked`]: reads the chunked coding (pure).
//! - [`connection`]: a socket with its buffer and its deadline.
//! - [`exchange`]: one request and its response on a connection.

pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod deadline;
pub(crate) mod exchange;
pub(crate) mod head;
