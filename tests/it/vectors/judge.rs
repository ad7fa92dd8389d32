//! Whether what came of a vector is what was expected of it.

use super::runner::Sent;
use super::stand::Stand;
use super::vector::{Check, Expect};
use std::time::Duration;
use test_support::raw::{self, End, Plan, RawAnswer, field};
use test_support::recorder::{Request, Seen};

/// Longest time for a backend's connection to be closed after the request on it failed.
const ABORT: Duration = Duration::from_secs(1);

impl Expect {
    /// Final answers to wait for.
    pub(crate) fn answers(&self) -> usize {
        match self {
            Self::RefusedAfterOne(_) => 2,
            Self::Passed(count, _) => *count,
            Self::Either(one, other) => one.answers().max(other.answers()),
            _ => 1,
        }
    }
}

impl Expect {
    /// Longest time without a byte.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            // A peer that speaks something else must not be kept waiting for the end of a head that never comes.
            Self::RefusedOrClosed(_) => Duration::from_secs(1),
            _ => Duration::from_secs(4),
        }
    }
}

/// Judges one vector.
pub(crate) async fn judge(stand: &Stand, expect: &Expect, sent: &Sent) -> Result<(), String> {
    let exchange = &sent.exchange;
    match expect {
        Expect::Either(one, other) => {
            let Err(first) = Box::pin(judge(stand, one, sent)).await else {
                return Ok(());
            };
            let second = Box::pin(judge(stand, other, sent)).await;
            second.map_err(|second| format!("{first}; or else {second}"))
        }
        Expect::Refused(statuses) => {
            refused(sent, statuses)?;
            nothing_upstream(stand, sent)
        }
        Expect::RefusedOrClosed(statuses) => {
            if exchange.answers.is_empty() && exchange.rest.is_empty() {
                if exchange.end == End::Open {
                    return Err(format!("expected {statuses:?} or a close, got silence"));
                }
            } else {
                refused(sent, statuses)?;
            }
            nothing_upstream(stand, sent)
        }
        Expect::RefusedAfterOne(statuses) => {
            let first = exchange.answers.first().map(|answer| answer.status);
            if first != Some(200) || exchange.answers.len() != 2 {
                let got = exchange.summary();
                return Err(format!("expected 200, then one of {statuses:?}, got {got}"));
            }
            refused(sent, statuses)?;
            let requests = sent.backend().requests.len();
            if requests != 1 {
                return Err(format!("{requests} requests upstream instead of 1"));
            }
            Ok(())
        }
        Expect::Aborted(statuses) => {
            refused(sent, statuses)?;
            aborted(stand).await
        }
        Expect::Local(statuses) => {
            one_of(sent, statuses)?;
            nothing_upstream(stand, sent)
        }
        Expect::Elsewhere(status, location) => {
            one_of(sent, &[*status])?;
            let found = field(&exchange.answers[0].fields, "location");
            if found != Some(location.as_bytes()) {
                let found = found.unwrap_or_default().escape_ascii();
                return Err(format!("sent to {found} instead of {location}"));
            }
            nothing_upstream(stand, sent)
        }
        Expect::Passed(count, checks) => {
            let statuses = exchange.statuses();
            if statuses != vec![200; *count] || !exchange.rest.is_empty() {
                let got = exchange.summary();
                return Err(format!("expected {count} answer(s) 200, got {got}"));
            }
            let got: usize = sent.seen.iter().map(|(_, seen)| seen.requests.len()).sum();
            if got != *count {
                return Err(format!("{got} requests upstream instead of {count}"));
            }
            clean_upstream(sent)?;
            checks.iter().try_for_each(|one| check(*one, sent))
        }
        Expect::BadUpstream(statuses) => {
            one_of(sent, statuses)?;
            next_is_clean(stand, sent).await
        }
        Expect::Relayed(status, checks) => {
            if exchange.statuses() != [*status] || !exchange.answers[0].complete {
                let got = exchange.summary();
                return Err(format!("expected a whole {status}, got {got}"));
            }
            if !exchange.rest.is_empty() {
                return Err(format!("more than one answer: {}", exchange.summary()));
            }
            checks.iter().try_for_each(|one| check(*one, sent))?;
            next_is_clean(stand, sent).await
        }
        Expect::CutShort => {
            let requests = sent.backend().requests.len();
            let cut = match exchange.answers.first() {
                Some(answer) => !answer.complete || answer.status == 502,
                None => true,
            };
            let told = exchange.statuses() == [502];
            if !cut || exchange.end == End::Open && !told {
                let got = exchange.summary();
                return Err(format!("expected an answer that is cut short, got {got}"));
            }
            if requests != 1 {
                return Err(format!(
                    "tried {requests} times, though an answer had begun"
                ));
            }
            next_is_clean(stand, sent).await
        }
    }
}

fn one_of(sent: &Sent, statuses: &[u16]) -> Result<(), String> {
    let exchange = &sent.exchange;
    let status = exchange.answers.last().map(|answer| answer.status);
    let complete = exchange.answers.last().is_some_and(|a| a.complete);
    if !status.is_some_and(|status| statuses.contains(&status)) || !complete {
        let got = exchange.summary();
        return Err(format!("expected one of {statuses:?}, got {got}"));
    }
    if !exchange.rest.is_empty() {
        return Err(format!("more than one answer: {}", exchange.summary()));
    }
    Ok(())
}

/// One of these statuses, said to be the last, and it is.
fn refused(sent: &Sent, statuses: &[u16]) -> Result<(), String> {
    one_of(sent, statuses)?;
    closes(sent)
}

fn closes(sent: &Sent) -> Result<(), String> {
    let exchange = &sent.exchange;
    if !exchange.answers.last().is_some_and(RawAnswer::closes) {
        let got = exchange.summary();
        return Err(format!("expected Connection: close, got {got}"));
    }
    if exchange.end == End::Open {
        return Err(format!("expected a close, got {}", exchange.summary()));
    }
    Ok(())
}

pub(crate) fn nothing_upstream(stand: &Stand, sent: &Sent) -> Result<(), String> {
    // Again, because a byte may have been on its way.
    match sent.upstream_bytes().max(stand.upstream_bytes()) {
        0 => Ok(()),
        count => Err(format!("refused, yet the backend got {count} bytes of it")),
    }
}

/// The backend saw no whole request, and what connection it came on is closed.
pub(crate) async fn aborted(stand: &Stand) -> Result<(), String> {
    let all_ended = |seen: &Seen| {
        let mut touched = seen.connections.iter().filter(|one| one.count > 0);
        touched.all(|one| one.ended.is_some())
    };
    let seen = stand.backend().wait(ABORT, all_ended).await;
    if let Some(whole) = seen.requests.iter().find(|request| request.complete) {
        return Err(format!(
            "refused, yet the backend got a whole request with body {:?}",
            String::from_utf8_lossy(&whole.body[..whole.body.len().min(60)])
        ));
    }
    if !all_ended(&seen) {
        return Err("the backend's connection is still open after 1 s".into());
    }
    Ok(())
}

/// Whatever a backend wrote for one request, the next one gets its own answer, on a connection that is in order.
async fn next_is_clean(stand: &Stand, sent: &Sent) -> Result<(), String> {
    let poisoned = sent.backend().requests.iter().map(|one| one.connection);
    let poisoned: Vec<usize> = poisoned.collect();
    stand.backend().begin(Vec::new());
    for number in 0..2 {
        let target = format!("/next/{number}");
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut stream = raw::connect(stand.tidegate.http).await;
        let next = raw::exchange(&mut stream, Plan::new(bytes)).await;
        let name = stand.backend().name().as_bytes();
        if next.statuses() != [200] || next.answers[0].body != name || !next.rest.is_empty() {
            return Err(format!("the next request got {}", next.summary()));
        }
    }
    let after = stand.backend().seen();
    let bad = matches!(sent.exchange.answers.first(), Some(answer) if answer.status >= 500)
        || sent.exchange.answers.first().is_some_and(|a| !a.complete);
    let reused = after
        .requests
        .iter()
        .any(|one| poisoned.contains(&one.connection));
    if bad && reused {
        return Err("a connection was used again after a bad answer".into());
    }
    Ok(())
}

pub(crate) fn clean_upstream(sent: &Sent) -> Result<(), String> {
    for (name, seen) in &sent.seen {
        if let Some(malformed) = seen.malformed.first() {
            return Err(format!("{name} got what is no plain request: {malformed}"));
        }
        if let Some(cut) = seen.requests.iter().find(|request| !request.complete) {
            return Err(format!("{name} got only a part of {}", cut.target));
        }
    }
    Ok(())
}

pub(crate) fn check(check: Check, sent: &Sent) -> Result<(), String> {
    let requests: Vec<&Request> = sent
        .seen
        .iter()
        .flat_map(|(_, seen)| &seen.requests)
        .collect();
    let first = requests.first().ok_or("no request upstream")?;
    let answer = || sent.exchange.answers.first().ok_or("no answer");
    let shown = |bytes: &[u8]| bytes[..bytes.len().min(80)].escape_ascii().to_string();
    let equal = |what: &str, got: String, wanted: &str| match got == wanted {
        true => Ok(()),
        false => Err(format!("{what} is {got:?} instead of {wanted:?}")),
    };
    match check {
        Check::Targets(wanted) => {
            let got: Vec<&str> = requests.iter().map(|one| one.target.as_str()).collect();
            equal(
                "upstream target",
                format!("{got:?}"),
                &format!("{wanted:?}"),
            )
        }
        Check::Method(wanted) => equal("upstream method", first.method.clone(), wanted),
        Check::Host(wanted) => {
            let got = first.values("host");
            let normal = got.first().map(|host| {
                let name = host
                    .rsplit_once(':')
                    .map_or(host.as_str(), |(name, _)| name);
                name.trim_end_matches('.').to_ascii_lowercase()
            });
            match got.len() == 1 && normal.as_deref() == Some(wanted) {
                true => Ok(()),
                false => Err(format!("upstream host is {got:?} instead of {wanted:?}")),
            }
        }
        Check::Body(wanted) => equal("upstream body", shown(&first.body), &shown(wanted)),
        Check::Field(name, wanted) => {
            let got = format!("{:?}", first.values(name));
            equal(&format!("upstream {name}"), got, &format!("[{wanted:?}]"))
        }
        Check::NoField(name) => match requests.iter().find(|one| !one.values(name).is_empty()) {
            None => Ok(()),
            Some(one) => Err(format!("upstream got {name}: {:?}", one.values(name))),
        },
        Check::NoTrailer(name) => match requests
            .iter()
            .any(|one| one.trailers.iter().any(|field| field.name == name))
        {
            false => Ok(()),
            true => Err(format!("upstream got the trailer {name}")),
        },
        Check::NotUpstream(bytes) => {
            let found = sent.seen.iter().any(|(_, seen)| {
                let mut all = seen.connections.iter();
                all.any(|one| one.bytes.windows(bytes.len()).any(|part| part == bytes))
            });
            match found {
                false => Ok(()),
                true => Err(format!("upstream got {:?}", shown(bytes))),
            }
        }
        Check::Backend(wanted) => {
            let got = sent.seen.iter().find(|(_, seen)| !seen.requests.is_empty());
            equal(
                "backend",
                got.map_or_else(String::new, |(name, _)| name.clone()),
                wanted,
            )
        }
        Check::AnswerBody(wanted) => equal("answer body", shown(&answer()?.body), &shown(wanted)),
        Check::AnswerField(name, wanted) => {
            let got = field(&answer()?.fields, name).map_or_else(String::new, shown);
            equal(&format!("answer {name}"), got, wanted)
        }
        Check::AnswerNoField(name) => match field(&answer()?.fields, name) {
            None => Ok(()),
            Some(value) => Err(format!("the client got {name}: {}", shown(value))),
        },
        Check::Closes => closes(sent),
    }
}
