//! Steps of U4, U8 and U9: backends whose connections must not be used again, or only by the same client.

use super::stand::Stand;
use super::vector::{get, get_target, post};
use std::time::Duration;
use test_support::raw::{self, End, Plan};
use test_support::recorder::Act;

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

async fn ask(stand: &Stand, bytes: Vec<u8>) -> raw::Exchange {
    let mut stream = raw::connect(stand.tidegate.http).await;
    raw::exchange(&mut stream, Plan::new(bytes)).await
}

/// Bytes come on an idle connection of the pool. Whoever asks next never sees them.
pub(crate) async fn at_rest(stand: &Stand) -> Result<(), String> {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    stand.begin(vec![
        Act::reply(good)
            .pause(Duration::from_millis(100))
            .write(EVIL),
        Act::ok(),
    ]);
    let first = ask(stand, get("")).await;
    if first.statuses() != [200] || first.answers[0].body != b"good" {
        return Err(format!("the first got {}", first.summary()));
    }
    let poisoned = stand.backend().seen().requests[0].connection;
    // Nothing tells when the bytes are there but their connection ending, which is what is hoped for.
    let ended = stand
        .backend()
        .wait(Duration::from_millis(500), |seen| {
            let mut all = seen.connections.iter();
            all.any(|one| one.id == poisoned && one.ended.is_some())
        })
        .await;
    drop(ended);
    for victim in 0..3 {
        let got = ask(stand, get("")).await;
        if got.statuses() != [200] || got.answers[0].body != b"a" {
            return Err(format!("victim {victim} got {}", got.summary()));
        }
    }
    Ok(())
}

/// The backend answers before the body is there. The client gets the answer; the rest of the body goes nowhere.
pub(crate) async fn early_answer(stand: &Stand) -> Result<(), String> {
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    stand.begin(vec![Act::reply(refusal).early(), Act::ok()]);
    let mut stream = raw::connect(stand.tidegate.http).await;
    let head = post("Content-Length: 100000\r\n", b"0123456789");
    let got = raw::exchange(&mut stream, Plan::new(head)).await;
    if got.statuses() != [413] || !got.answers[0].closes() || got.end == End::Open {
        return Err(format!("expected 413 and a close, got {}", got.summary()));
    }
    let used = stand.backend().seen().requests[0].connection;
    let next = ask(stand, get("")).await;
    let seen = stand.backend().seen();
    let again = seen.requests[1..].iter().any(|one| one.connection == used);
    if next.statuses() != [200] || again {
        return Err(format!(
            "the next got {}; same connection: {again}",
            next.summary()
        ));
    }
    Ok(())
}

/// A connection that carries NTLM or Negotiate belongs to one client, because the backend takes all on it for that client.
pub(crate) async fn pinned(stand: &Stand, scheme: &str) -> Result<(), String> {
    let challenge = format!(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {scheme}\r\nContent-Length: 2\r\n\r\nno"
    );
    stand.begin(vec![Act::reply(challenge), Act::ok()]);
    let mut first = raw::connect(stand.tidegate.http).await;
    let got = raw::exchange(&mut first, Plan::new(get_target("/first"))).await;
    if got.statuses() != [401] || got.end != End::Open {
        return Err(format!(
            "expected 401 and an open connection, got {}",
            got.summary()
        ));
    }
    let other = ask(stand, get_target("/other")).await;
    let again = raw::exchange(&mut first, Plan::new(get_target("/again"))).await;
    if other.statuses() != [200] || again.statuses() != [200] {
        let (other, again) = (other.summary(), again.summary());
        return Err(format!("the other got {other}, the first again {again}"));
    }
    let seen = stand.backend().seen();
    let on = |target: &str| {
        let found = seen.requests.iter().find(|one| one.target == target);
        found.map(|one| one.connection)
    };
    if on("/other") == on("/first") {
        return Err("another client's request went over the authenticated connection".into());
    }
    if on("/again") != on("/first") {
        return Err("the client's next request went over another connection".into());
    }
    drop(first);
    let later = ask(stand, get_target("/later")).await;
    let seen = stand.backend().seen();
    let reused = seen
        .requests
        .iter()
        .any(|one| one.target == "/later" && Some(one.connection) == on("/first"));
    match later.statuses() == [200] && !reused {
        true => Ok(()),
        false => Err("the authenticated connection outlived its client".into()),
    }
}

/// 64 MiB that a decoder would make more of pass through in bounded memory.
pub(crate) async fn bomb(stand: &Stand) -> Result<(), String> {
    const SIZE: usize = 64 << 20;
    const GROWTH: u64 = 8 << 20;
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {SIZE}\r\n\r\n");
    stand.begin(vec![Act::reply(head).write(vec![0; SIZE])]);
    let before = stand.tidegate.resident();
    let got = ask(stand, get("Accept-Encoding: gzip\r\n")).await;
    let grown = stand.tidegate.resident().saturating_sub(before);
    let whole = got
        .answers
        .first()
        .is_some_and(|answer| answer.body.len() == SIZE);
    if !whole {
        return Err(format!("not relayed whole: {}", got.summary()));
    }
    match grown <= GROWTH {
        true => Ok(()),
        false => Err(format!("memory grew by {} KiB", grown / 1024)),
    }
}
