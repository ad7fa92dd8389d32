//! What a vector is: bytes, what the backend does, and what is expected. Only data; `runner` sends and judges.

use super::http2_runner::{self, Transport};
use super::stand::{Stand, has_flag};
use std::pin::Pin;
use test_support::recorder::Act;

/// A row of the catalogue: an id, and its vectors. A vector's id is the row's and its place, so add new ones at the end.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) about: &'static str,
    /// Added to the flags of `tidegate serve`.
    pub(crate) flags: Vec<&'static str>,
    pub(crate) cases: Vec<Case>,
    /// Its cases run at the same time; they use no backend.
    pub(crate) at_once: bool,
}

/// One case of a row.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// How a case is run.
pub(crate) enum Kind {
    /// Sent whole, split, and after a good request.
    Vector(Vector),
    /// Steps of its own; says what went wrong.
    Scenario(Scenario),
    /// Frames of HTTP/2, or steps with them.
    Http2(http2_runner::Case, Transport),
}

/// Steps of their own.
pub(crate) type Scenario = for<'a> fn(&'a Stand) -> Steps<'a>;

/// What a scenario does.
pub(crate) type Steps<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// Bytes and what is expected of them.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) bytes: Vec<u8>,
    pub(crate) backend: Vec<Act>,
    pub(crate) head: bool,
    pub(crate) expect: Expect,
    /// Only as the first bytes of a connection.
    pub(crate) first_only: bool,
}

/// What is expected of a vector.
#[derive(Clone)]
pub(crate) enum Expect {
    /// One of these statuses, `Connection: close`, closed; the backend saw nothing of it.
    Refused(&'static [u16]),
    /// As [`Expect::Refused`], or closed without a word: the peer may not speak HTTP at all.
    RefusedOrClosed(&'static [u16]),
    /// The first request is answered 200, then as [`Expect::Refused`].
    RefusedAfterOne(&'static [u16]),
    /// As [`Expect::Refused`], but the backend may have seen its beginning: it never sees its end, and its connection is
    /// closed.
    Aborted(&'static [u16]),
    /// One of these statuses by us; the backend saw nothing; the connection may go on.
    Local(&'static [u16]),
    /// An answer by us of this status, with this `Location`; the backend saw nothing.
    Elsewhere(u16, &'static str),
    /// So many answers of 200, and the backend got what the checks say.
    Passed(usize, &'static [Check]),
    /// As this, or as that.
    Either(Box<Expect>, Box<Expect>),
    /// The backend's answer is unusable: one of these statuses; its connection is never used again, and what else it
    /// wrote reaches nobody.
    BadUpstream(&'static [u16]),
    /// The backend's answer comes to the client, whole.
    Relayed(u16, &'static [Check]),
    /// The backend's answer begins, and the client can see that it did not end.
    CutShort,
}

/// One thing to look at. Of the requests at the backend it is the first, unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Check {
    /// Targets of all requests, in order.
    Targets(&'static [&'static str]),
    /// Method.
    Method(&'static str),
    /// Exactly one `Host`, which names this host, whatever its case, port and final dot.
    Host(&'static str),
    /// Body.
    Body(&'static [u8]),
    /// Exactly one line of this field, with this value.
    Field(&'static str, &'static str),
    /// No line of this field, in none of the requests.
    NoField(&'static str),
    /// No trailer of this name.
    NoTrailer(&'static str),
    /// These bytes never went upstream.
    NotUpstream(&'static [u8]),
    /// The backend of this name got it.
    Backend(&'static str),
    /// The answer has this body.
    AnswerBody(&'static [u8]),
    /// The answer has one line of this field, with this value.
    AnswerField(&'static str, &'static str),
    /// The answer has no line of this field.
    AnswerNoField(&'static str),
    /// The answer says that the connection ends, and it does.
    Closes,
}

/// A row without vectors.
pub(crate) fn row(id: &'static str, about: &'static str) -> Row {
    Row {
        id,
        about,
        flags: Vec::new(),
        cases: Vec::new(),
        at_once: false,
    }
}

impl Row {
    /// Adds flags of `tidegate serve`.
    pub(crate) fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }

    /// Runs its cases at the same time: they wait for long and use no backend.
    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Adds those of these flags that `tidegate serve` has.
    pub(crate) fn flags_if_known(mut self, flags: &[&'static str]) -> Self {
        let name = |flag: &&'static str| flag.split('=').next().unwrap_or_default();
        self.flags
            .extend(flags.iter().copied().filter(|flag| has_flag(name(flag))));
        self
    }

    fn add(mut self, name: impl Into<String>, kind: Kind) -> Self {
        let name = name.into();
        self.cases.push(Case { name, kind });
        self
    }

    /// A vector with an expectation.
    pub(crate) fn vector(
        self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        expect: Expect,
    ) -> Self {
        self.add(name, Kind::Vector(Vector::new(bytes, expect)))
    }

    /// See [`Expect::Refused`].
    pub(crate) fn refused(
        self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        statuses: &'static [u16],
    ) -> Self {
        self.vector(name, bytes, Expect::Refused(statuses))
    }

    /// See [`Expect::Aborted`].
    pub(crate) fn aborted(
        self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        statuses: &'static [u16],
    ) -> Self {
        self.vector(name, bytes, Expect::Aborted(statuses))
    }

    /// See [`Expect::Local`].
    pub(crate) fn local(
        self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        statuses: &'static [u16],
    ) -> Self {
        self.vector(name, bytes, Expect::Local(statuses))
    }

    /// One request that passes; see [`Expect::Passed`].
    pub(crate) fn passed(
        self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        checks: &'static [Check],
    ) -> Self {
        self.vector(name, bytes, Expect::Passed(1, checks))
    }

    /// What a backend writes, in answer to a plain GET.
    pub(crate) fn upstream(self, name: impl Into<String>, act: Act, expect: Expect) -> Self {
        let vector = Vector::new(get(""), expect).backend(vec![act]);
        self.add(name, Kind::Vector(vector))
    }

    /// A vector that is more than bytes and an expectation.
    pub(crate) fn special(self, name: impl Into<String>, vector: Vector) -> Self {
        self.add(name, Kind::Vector(vector))
    }

    /// Steps of its own.
    pub(crate) fn scenario(self, name: impl Into<String>, scenario: Scenario) -> Self {
        self.add(name, Kind::Scenario(scenario))
    }
}

impl Vector {
    /// These bytes, before a backend that answers 200.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>, expect: Expect) -> Self {
        Self {
            bytes: bytes.into(),
            backend: Vec::new(),
            head: false,
            expect,
            first_only: false,
        }
    }

    /// What the backend does.
    pub(crate) fn backend(mut self, backend: Vec<Act>) -> Self {
        self.backend = backend;
        self
    }

    /// The request is HEAD.
    pub(crate) fn head(mut self) -> Self {
        self.head = true;
        self
    }

    /// It makes sense only as the first bytes of a connection.
    pub(crate) fn first_only(mut self) -> Self {
        self.first_only = true;
        self
    }
}

/// Either of two outcomes.
pub(crate) fn either(one: Expect, other: Expect) -> Expect {
    Expect::Either(Box::new(one), Box::new(other))
}

/// A GET for the main host with these field lines, each with its CRLF.
pub(crate) fn get(lines: &str) -> Vec<u8> {
    request("GET /v HTTP/1.1", lines, b"")
}

/// A GET for the main host with this target.
pub(crate) fn get_target(target: &str) -> Vec<u8> {
    request(&format!("GET {target} HTTP/1.1"), "", b"")
}

/// A POST for the main host with these field lines, each with its CRLF, and this body.
pub(crate) fn post(lines: &str, body: &[u8]) -> Vec<u8> {
    request("POST /v HTTP/1.1", lines, body)
}

/// A request for the main host.
pub(crate) fn request(line: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    join(&[
        line.as_bytes(),
        b"\r\nHost: a.test\r\n",
        lines.as_bytes(),
        b"\r\n",
        body,
    ])
}

/// A POST for the main host in chunks; `body` is what follows the head.
pub(crate) fn in_chunks(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body.as_ref())
}

/// Pieces, one after the other.
pub(crate) fn join(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}
