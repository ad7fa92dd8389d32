//! The probes of one endpoint, one after the other for as long as it is checked.
//!
//! What is asked is in `ask`.

use super::Subject;
use super::ask::Probe;
use super::patience::within;
use crate::random_number;
use balance::active_check::{Transition, Verdict, counts, next_after};
use balance::{Bar, Check};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The least pause between the end of a probe and the next.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn run(subject: Subject) {
    let Some(check) = &subject.policy.active_check else {
        return;
    };
    let probe = Probe::new(check, subject.state.addr(), &subject.way);
    let mut verdict = Verdict::new(!subject.state.has(Bar::Probe));
    loop {
        let began = Instant::now();
        let (answer, late) = within(check.timeout, probe.ask()).await;
        let answer = answer.unwrap_or_else(|| Err(format!("no answer in {:?}", check.timeout)));
        let passed = answer.is_ok();
        if counts(passed, late, check.timeout) {
            let (Ok(why) | Err(why)) = answer;
            let transition = verdict.observe(passed, check);
            let (upstream, state, now) = (&subject.upstream, &subject.state, subject.now());
            // Before it is told: whoever sees that a check has ended sees what came of it.
            match transition {
                Some(Transition::Down) => {
                    upstream.take_out(state, Bar::Probe, &why, now);
                }
                Some(Transition::Up) => {
                    upstream.bring_back(state, Bar::Probe, &why, now);
                }
                None => {}
            }
            subject.checked(Check::Active, probe.kind(), passed, why.into());
        } else {
            tracing::debug!(cluster = %subject.upstream.id(), endpoint = %subject.state.addr(), ?late,
                "a probe failed while we were held up ourselves: it does not count");
        }
        let next = began + next_after(check.interval, random_number());
        sleep_until(next.max(Instant::now() + PAUSE)).await;
    }
}
