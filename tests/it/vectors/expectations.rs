//! Steps of B23: a client that waits before it sends its body.

use super::stand::Stand;
use super::vector::post;
use std::time::Duration;
use test_support::raw::{self, Plan};
use test_support::recorder::Act;

const EXPECTING: &str = "Expect: 100-continue\r\nContent-Length: 5\r\n";

/// The client sends its body only after 100, and gets the answer to it.
pub(crate) async fn continued(stand: &Stand) -> Result<(), String> {
    stand.begin(vec![Act::echo()]);
    let mut stream = raw::connect(stand.tidegate.http).await;
    // This backend does not know the expectation, so the client is told to go on when that has been waited for.
    let plan = Plan::new(post(EXPECTING, b"")).patience(Duration::from_millis(1500));
    let first = raw::exchange(&mut stream, plan).await;
    if first.interim != [100] || !first.answers.is_empty() {
        return Err(format!("expected 100 alone, got {}", first.summary()));
    }
    let then = raw::exchange(&mut stream, Plan::new("hello")).await;
    match then.answers.first() {
        Some(answer) if answer.status == 200 && answer.body == b"hello" => Ok(()),
        _ => Err(format!(
            "expected 200 after the body, got {}",
            then.summary()
        )),
    }
}

/// The backend refuses at the head. Whether the client was told 100 or not, it gets the refusal and the connection ends,
/// because nobody can tell whether a body follows.
pub(crate) async fn refused_at_once(stand: &Stand) -> Result<(), String> {
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    stand.begin(vec![Act::reply(refusal).early()]);
    let mut stream = raw::connect(stand.tidegate.http).await;
    let got = raw::exchange(&mut stream, Plan::new(post(EXPECTING, b""))).await;
    let closes = got.answers.first().is_some_and(|answer| answer.closes());
    if got.statuses() != [403] || !closes || got.end == raw::End::Open {
        return Err(format!("expected 403 and a close, got {}", got.summary()));
    }
    Ok(())
}
