//! What an HTTP/2 vector is, how it is sent, and whether what came of it is what was expected.
//!
//! Each is sent whole, in pieces, and after a good request on the same connection. The transport is a parameter: TLS with
//! ALPN, or prior knowledge on the plain port where that is served.

use super::invariants::assert_invariants;
use super::judge;
use super::random::Random;
use super::runner::{Sent, split};
use super::stand::Stand;
use super::vector::Check;
use std::rc::Rc;
use std::time::Duration;
use test_support::h2_raw::{self, Connection, Got, block, headers};
use test_support::raw::{End, Exchange, RawAnswer};
use test_support::recorder::{Act, Seen};
use tokio::io::{AsyncRead, AsyncWrite};

/// How the connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tls,
    PriorKnowledge,
}

/// Both directions of a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Transport {
    /// `:scheme` of requests over it.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Tls => "https",
            Self::PriorKnowledge => "http",
        }
    }

    /// Connects, with these SETTINGS.
    pub(crate) async fn open(
        self,
        stand: &Stand,
        settings: &[(u16, u32)],
    ) -> Connection<Box<dyn Stream>> {
        let io: Box<dyn Stream> = match self {
            Self::Tls => Box::new(crate::tls::connect(stand.tidegate.https, "a.test", "h2").await),
            Self::PriorKnowledge => Box::new(test_support::raw::connect(stand.tidegate.http).await),
        };
        Connection::open(io, settings).await
    }
}

/// What a vector's bytes depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The first stream that it may use.
    pub(crate) stream: u32,
    pub(crate) scheme: &'static str,
}

impl At {
    /// A header block of a request: method, path, authority, and these fields.
    pub(crate) fn block(self, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut all = vec![
            (":method", method),
            (":scheme", self.scheme),
            (":path", path),
            (":authority", "a.test"),
        ];
        all.extend_from_slice(fields);
        block(&all)
    }

    /// A GET with these fields, without a body.
    pub(crate) fn get(self, fields: &[(&str, &str)]) -> Vec<u8> {
        headers(self.stream, true, &self.block("GET", "/v", fields))
    }

    /// The head of a POST with these fields.
    pub(crate) fn post(self, fields: &[(&str, &str)]) -> Vec<u8> {
        headers(self.stream, false, &self.block("POST", "/v", fields))
    }

    /// A request of these fields alone.
    pub(crate) fn only<N: AsRef<[u8]>, V: AsRef<[u8]>>(self, fields: &[(N, V)]) -> Vec<u8> {
        headers(self.stream, true, &block(fields))
    }

    /// Bytes of a DATA frame.
    pub(crate) fn data(self, end: bool, bytes: &[u8]) -> Vec<u8> {
        h2_raw::data(self.stream, end, bytes)
    }
}

/// What is expected of an HTTP/2 vector.
#[derive(Clone)]
pub(crate) enum Expect {
    /// The stream is reset or the connection given up; or, where statuses are named, one of these is the answer. The
    /// backend saw nothing.
    Refused(&'static [u16]),
    /// As [`Expect::Refused`], but the backend may have seen its beginning, and never its end.
    Aborted(&'static [u16]),
    /// One of these statuses; the backend saw nothing.
    Status(&'static [u16]),
    /// The connection is given up, with an error; the backend saw nothing.
    GoAway,
    /// Refused, or answered 200; if the backend got anything, then what the checks say.
    Stands(&'static [Check]),
    /// 200, and the backend got what the checks say.
    Passed(&'static [Check]),
    Either(Box<Expect>, Box<Expect>),
}

impl Expect {
    /// When there is nothing more to wait for.
    fn over(&self, stream: u32) -> impl Fn(&Got) -> bool {
        let wants_goaway = matches!(self, Self::GoAway);
        move |got| got.is_over() || !wants_goaway && got.stream(stream).is_over()
    }
}

type Bytes = Rc<dyn Fn(At) -> Vec<u8>>;

/// Frames and what is expected of them.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) bytes: Bytes,
    pub(crate) expect: Expect,
}

/// Steps of their own.
pub(crate) type Scenario = for<'a> fn(&'a Stand, Transport) -> super::vector::Steps<'a>;

/// One case of a row.
#[derive(Clone)]
pub(crate) enum Case {
    Vector(Vector),
    Scenario(Scenario),
}

/// Runs one case over one transport.
pub(crate) async fn run(
    stand: &Stand,
    transport: Transport,
    case: &Case,
    random: &mut Random,
) -> Result<(), String> {
    let vector = match case {
        Case::Vector(vector) => vector,
        Case::Scenario(scenario) => {
            stand.begin(Vec::new());
            scenario(stand, transport).await?;
            return assert_invariants(stand, None).await;
        }
    };
    for mode in ["", "in pieces: ", "after a good request: "] {
        let result = send(stand, transport, vector, mode, random).await;
        result.map_err(|why| format!("{mode}{why}"))?;
    }
    Ok(())
}

async fn send(
    stand: &Stand,
    transport: Transport,
    vector: &Vector,
    mode: &str,
    random: &mut Random,
) -> Result<(), String> {
    let scheme = transport.scheme();
    let mut connection = transport.open(stand, &[]).await;
    let got = connection
        .read(Duration::from_secs(4), |got| got.settings)
        .await;
    if !got.settings {
        return Err(format!("no SETTINGS: {}", got.summary(0)));
    }
    let mut stream = 1;
    if mode.starts_with("after") {
        stand.begin(Vec::new());
        connection.send(&At { stream, scheme }.get(&[])).await;
        let good = connection
            .read(Duration::from_secs(4), |got| got.stream(1).ended)
            .await;
        if good.stream(1).status != Some(200) {
            return Err(format!("the good request got {}", good.summary(1)));
        }
        stream = 3;
    }
    stand.begin(Vec::new());
    let bytes = (vector.bytes)(At { stream, scheme });
    if mode.starts_with("in pieces") {
        for (pause, piece) in split(&bytes, random) {
            tokio::time::sleep(pause).await;
            connection.send(&piece).await;
        }
    } else {
        connection.pour(&bytes).await;
    }
    let got = connection
        .read(Duration::from_secs(3), vector.expect.over(stream))
        .await;
    drop(connection);
    let sent = as_sent(stand, &got, stream, bytes);
    judge(stand, &vector.expect, &got, stream, &sent).await?;
    assert_invariants(stand, Some(&sent)).await
}

/// Sends a vector and waits for what comes, without a look at it.
pub(crate) async fn send_again(
    stand: &Stand,
    transport: Transport,
    vector: &Vector,
) -> Result<(), String> {
    let (stream, scheme) = (1, transport.scheme());
    let mut connection = transport.open(stand, &[]).await;
    connection
        .pour(&(vector.bytes)(At { stream, scheme }))
        .await;
    let got = connection
        .read(Duration::from_secs(3), vector.expect.over(stream))
        .await;
    match got.settings || got.closed {
        true => Ok(()),
        false => Err(format!("no SETTINGS: {}", got.summary(0))),
    }
}

/// In the form that checks of HTTP/1.1 look at. Fields of the answer are not decoded.
fn as_sent(stand: &Stand, got: &Got, id: u32, bytes: Vec<u8>) -> Sent {
    let stream = got.stream(id);
    let answers = stream.status.map(|status| RawAnswer {
        status,
        body: stream.body.clone(),
        complete: stream.ended,
        ..RawAnswer::default()
    });
    let seen = stand.recorders.iter();
    Sent {
        bytes,
        exchange: Exchange {
            answers: answers.into_iter().collect(),
            interim: Vec::new(),
            rest: Vec::new(),
            end: if got.closed { End::Closed } else { End::Open },
            sent: 0,
        },
        seen: seen
            .map(|one| (one.name().to_owned(), one.seen()))
            .collect(),
    }
}

async fn judge(
    stand: &Stand,
    expect: &Expect,
    got: &Got,
    id: u32,
    sent: &Sent,
) -> Result<(), String> {
    let stream = got.stream(id);
    let told = |statuses: &[u16]| {
        stream
            .status
            .is_some_and(|status| statuses.contains(&status))
    };
    let refused = |statuses: &[u16]| {
        let gone = stream.reset.is_some() || got.is_over();
        match told(statuses) || gone && stream.status.is_none() {
            true => Ok(()),
            false => Err(format!(
                "expected a reset, GOAWAY or {statuses:?}, got {}",
                got.summary(id)
            )),
        }
    };
    match expect {
        Expect::Refused(statuses) => {
            refused(statuses)?;
            judge::nothing_upstream(stand, sent)
        }
        Expect::Aborted(statuses) => {
            refused(statuses)?;
            judge::aborted(stand).await
        }
        Expect::Status(statuses) => {
            if !told(statuses) {
                let got = got.summary(id);
                return Err(format!("expected one of {statuses:?}, got {got}"));
            }
            judge::nothing_upstream(stand, sent)
        }
        Expect::GoAway => {
            if !got.is_over() || stream.status.is_some() {
                return Err(format!("expected GOAWAY, got {}", got.summary(id)));
            }
            judge::nothing_upstream(stand, sent)
        }
        Expect::Stands(checks) => {
            if stream.status != Some(200) {
                refused(&[400])?;
            }
            if sent.backend().requests.is_empty() {
                return Ok(());
            }
            checks.iter().try_for_each(|one| judge::check(*one, sent))
        }
        Expect::Passed(checks) => {
            if stream.status != Some(200) || !stream.ended {
                return Err(format!("expected 200, got {}", got.summary(id)));
            }
            judge::clean_upstream(sent)?;
            checks.iter().try_for_each(|one| judge::check(*one, sent))
        }
        Expect::Either(one, other) => {
            let Err(first) = Box::pin(judge(stand, one, got, id, sent)).await else {
                return Ok(());
            };
            let second = Box::pin(judge(stand, other, got, id, sent)).await;
            second.map_err(|second| format!("{first}; or else {second}"))
        }
    }
}

/// Whether the plain port speaks HTTP/2 to those who know it.
pub(crate) async fn speaks_prior_knowledge(stand: &Stand) -> bool {
    let mut connection = Transport::PriorKnowledge.open(stand, &[]).await;
    let got = connection
        .read(Duration::from_secs(1), |got| got.settings)
        .await;
    got.settings
}

/// A stream reset by us ends what it began at the backend, within a second.
pub(crate) async fn cancelled(
    stand: &Stand,
    transport: Transport,
    act: Act,
    begin: fn(At) -> Vec<u8>,
    begun: fn(&Got, &Seen) -> bool,
) -> Result<(), String> {
    stand.begin(vec![act]);
    let mut connection = transport.open(stand, &[]).await;
    let at = At {
        stream: 1,
        scheme: transport.scheme(),
    };
    connection.send(&begin(at)).await;
    for _ in 0..200 {
        let got = connection.read(Duration::from_millis(10), |_| false).await;
        if begun(&got, &stand.backend().seen()) {
            break;
        }
    }
    const CANCEL: u32 = 8;
    connection.send(&h2_raw::reset(1, CANCEL)).await;
    let ended = |seen: &Seen| {
        let mut used = seen.connections.iter().filter(|one| one.count > 0);
        used.all(|one| one.ended.is_some())
    };
    let seen = stand.backend().wait(Duration::from_secs(1), ended).await;
    if seen.requests.is_empty() {
        return Err("the request did not reach the backend".into());
    }
    if !ended(&seen) {
        return Err("the backend's connection is still open 1 s after the reset".into());
    }
    stand.begin(Vec::new());
    let next = At { stream: 3, ..at };
    connection.send(&next.get(&[])).await;
    let got = connection
        .read(Duration::from_secs(3), |got| got.stream(3).is_over())
        .await;
    match got.stream(3).status {
        Some(200) => Ok(()),
        _ => Err(format!("the next request got {}", got.summary(3))),
    }
}
