//! What must hold after every vector, whatever it was, and what must hold after every row.

use super::canary::Figures;
use super::runner::Sent;
use super::stand::Stand;
use crate::load_stand::full;
use serde_json::Value;
use std::time::{Duration, Instant};
use test_support::raw::RawAnswer;

/// Largest body of an error of ours.
const MAX_ERROR_BODY: usize = 512;
/// Shortest piece of input that counts as an echo of it.
const ECHO: usize = 5;

/// After every vector: the process lives and has not panicked, errors give nothing away, the other tenant is served.
pub(crate) async fn assert_invariants(stand: &Stand, sent: Option<&Sent>) -> Result<(), String> {
    if !stand.tidegate.is_running() {
        return Err("tidegate is gone".into());
    }
    let logged = stand.tidegate.logged();
    if let Some(line) = logged.lines().find(|line| line.contains("panicked")) {
        return Err(format!("it panicked: {line}"));
    }
    if let Some(sent) = sent {
        for answer in sent.exchange.answers.iter().filter(|a| a.status >= 400) {
            if sent.is_ours(answer) {
                says_nothing(answer, &sent.bytes)?;
            }
        }
    }
    stand.canary_once().await
}

/// An error of ours is short, and tells neither what was sent nor what is behind us.
fn says_nothing(answer: &RawAnswer, input: &[u8]) -> Result<(), String> {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.body.len() > MAX_ERROR_BODY {
        return Err(format!("an error body of {} bytes", answer.body.len()));
    }
    for forbidden in ["127.0.0.1", "tidegate", "hyper", "rror(", "os error"] {
        if body.to_ascii_lowercase().contains(forbidden) {
            return Err(format!("the error body says {forbidden:?}: {body:?}"));
        }
    }
    // The reason phrase has words that a request may have too.
    let reason = http::StatusCode::from_u16(answer.status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let told = body.replace(reason, "");
    let input = &input[..input.len().min(4096)];
    let words = input.split(|byte| !byte.is_ascii_alphanumeric());
    for word in words.filter(|word| word.len() >= ECHO) {
        let word = String::from_utf8_lossy(word);
        if told.contains(&*word) {
            return Err(format!("the error body echoes {word:?}: {body:?}"));
        }
    }
    Ok(())
}

/// The other tenant was served all the time (I2). How fast is asserted in the full form, in which rows run one at a time.
pub(crate) fn assert_canary(figures: &Figures) -> Result<(), String> {
    const P99: Duration = Duration::from_millis(50);
    let (asked, failures) = (figures.asked, &figures.failures);
    if asked == 0 {
        return Err("the other tenant was not asked".into());
    }
    if let Some(first) = failures.first() {
        let count = failures.len();
        return Err(format!(
            "{count} of {asked} requests of the other tenant failed, the first: {first}"
        ));
    }
    match full() && figures.p99 > P99 {
        false => Ok(()),
        true => Err(format!("the other tenant's p99 is {:?}", figures.p99)),
    }
}

/// What a process holds while nothing happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    descriptors: f64,
    tasks: f64,
}

impl Rest {
    /// How far from before still counts as before (I4).
    const NEAR: f64 = 5.0;

    /// Looks at it now. Idle upstream connections are kept on purpose and not counted; over HTTP/1.1 none has a task.
    pub(crate) async fn of(stand: &Stand) -> Self {
        let idle = stand.tidegate.metric("tidegate_upstream_idle").await;
        Self {
            descriptors: stand.tidegate.descriptors() as f64 - idle,
            tasks: stand.tidegate.metric("tidegate_tasks").await,
        }
    }

    fn is_near(self, before: Self) -> bool {
        let near = |now: f64, before: f64| (now - before).abs() <= Self::NEAR;
        near(self.descriptors, before.descriptors) && near(self.tasks, before.tasks)
    }
}

/// After every row (I4): descriptors, tasks and connections are as before, and every line of the access log is a line of JSON.
pub(crate) async fn assert_at_rest(stand: &Stand, before: Rest) -> Result<(), String> {
    if before.tasks < 1.0 {
        return Err("this binary has no tidegate_tasks: it is too old for this test".into());
    }
    let start = Instant::now();
    loop {
        let now = Rest::of(stand).await;
        let open = stand.tidegate.metric("tidegate_connections_open").await;
        let active = stand.tidegate.metric("tidegate_requests_active").await;
        if now.is_near(before) && open == 0.0 && active == 0.0 {
            break;
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!(
                "10 s later: {now:?} beside idle upstream connections ({before:?}), {open} connections, {active} requests"
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stand.canary_at("/end-of-row").await?;
    let text = stand.logged_until("/end-of-row").await?;
    for line in text.lines() {
        if let Some(control) = line.bytes().find(|byte| *byte < b' ' || *byte == 0x7f) {
            return Err(format!("byte {control:#04x} in the access log: {line:?}"));
        }
        if serde_json::from_str::<Value>(line).is_err() {
            return Err(format!("no JSON in the access log: {line}"));
        }
    }
    Ok(())
}
