//! Asks the agent of one endpoint how it is, and does what it says.
//!
//! What its words mean is in [`balance::agent_check`]. An agent that cannot be reached changes nothing.

use super::patience::within;
use super::{NOT_CHECKED, Subject};
use crate::random_number;
use crate::upstream_io::UpstreamIo;
use balance::active_check::{counts, next_after};
use balance::agent_check::AgentWord;
use balance::{Bar, Check, Voice};
use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

/// Longest line of an agent.
const MOST_LINE: usize = 1024;
/// The least pause between the end of a question and the next.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn run(subject: Subject) {
    let Some(check) = &subject.policy.agent_check else {
        return;
    };
    let addr = SocketAddr::new(subject.state.addr().ip(), check.port);
    let mut was_silent = false;
    loop {
        let began = Instant::now();
        let (line, late) = within(check.timeout, ask(addr, check.send.as_bytes())).await;
        let line = line.unwrap_or_else(|| Err(format!("no answer in {:?}", check.timeout)));
        let answered = line.is_ok();
        if counts(answered, late, check.timeout) {
            let why = match line {
                Ok(line) => {
                    let word = AgentWord::parse(&line);
                    heed(&subject, &word);
                    if word.unknown > 0 {
                        let (cluster, count) = (subject.upstream.id(), word.unknown);
                        tracing::debug!(%cluster, agent = %addr, count, "an agent says words that mean nothing to us");
                    }
                    Cow::Owned(told(&word))
                }
                Err(why) => {
                    if !was_silent {
                        let cluster = subject.upstream.id();
                        tracing::warn!(%cluster, agent = %addr, %why, "an agent does not answer; what it said last holds");
                    }
                    Cow::Owned(why)
                }
            };
            was_silent = !answered;
            subject.checked(Check::Agent, "agent", answered, why);
        }
        let next = began + next_after(check.interval, random_number());
        sleep_until(next.max(Instant::now() + PAUSE)).await;
    }
}

/// The line it says.
async fn ask(addr: SocketAddr, send: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: &dyn Display| error.to_string();
    let stream = UpstreamIo::connect(addr, None, send).await;
    let mut stream = stream.map_err(|error| text(&error))?;
    stream.flush().await.map_err(|error| text(&error))?;
    let mut line = Vec::with_capacity(MOST_LINE);
    while !line.contains(&b'\n') {
        if line.len() >= MOST_LINE {
            return Err(format!("a line of more than {MOST_LINE} bytes"));
        }
        let mut rest = (&mut stream).take((MOST_LINE - line.len()) as u64);
        match rest.read_buf(&mut line).await {
            Ok(0) if line.is_empty() => return Err("nothing was said".into()),
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(text(&error)),
        }
    }
    Ok(line)
}

/// Does what was said.
fn heed(subject: &Subject, word: &AgentWord) {
    let (upstream, state, now) = (&subject.upstream, &subject.state, subject.now());
    let mut changed = false;
    if let Some(percent) = word.weight_percent {
        changed |= state.set_weight_percent(Voice::Agent, percent);
    }
    if let Some(most) = word.most {
        changed |= state.set_most(Voice::Agent, most);
    }
    let why = told(word);
    let said = [
        (word.works.map(|works| !works), Bar::Agent),
        (word.drains, Bar::AgentDrained),
    ];
    let mut refreshed = false;
    for (out, bar) in said {
        refreshed |= match out {
            Some(true) => upstream.take_out(state, bar, &why, now),
            Some(false) => upstream.bring_back(state, bar, &why, now),
            None => false,
        };
    }
    if changed && !refreshed {
        upstream.refresh(now);
    }
}

/// What was said, in our words: whatever an agent sends may stand in a log.
fn told(word: &AgentWord) -> String {
    let mut words = Vec::new();
    match (word.works, &word.reason) {
        (Some(true), _) => words.push("up".to_owned()),
        (Some(false), None) => words.push("down".to_owned()),
        (Some(false), Some(reason)) => words.push(format!("down ({reason})")),
        (None, _) => {}
    }
    match word.drains {
        Some(true) => words.push("drain".to_owned()),
        Some(false) => words.push("ready".to_owned()),
        None => {}
    }
    if let Some(percent) = word.weight_percent {
        words.push(format!("{percent}%"));
    }
    match word.most {
        Some(Some(most)) => words.push(format!("maxconn:{most}")),
        Some(None) => words.push("no maxconn".to_owned()),
        None => {}
    }
    if words.is_empty() {
        words.push("nothing we know".to_owned());
    }
    format!("the agent says {}", words.join(" "))
}

/// Takes back all it has said.
pub(super) fn release(subject: &Subject) {
    let (upstream, state, now) = (&subject.upstream, &subject.state, subject.now());
    upstream.bring_back(state, Bar::Agent, NOT_CHECKED, now);
    upstream.bring_back(state, Bar::AgentDrained, NOT_CHECKED, now);
    let weight = state.set_weight_percent(Voice::Agent, 100);
    if state.set_most(Voice::Agent, None) || weight {
        upstream.refresh(now);
    }
}
