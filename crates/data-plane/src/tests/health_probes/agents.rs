//! Agents, and what operators want.

use super::*;

async fn shares(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        *shares.entry(answer.text()).or_insert(0) += 1;
    }
    shares
}

/// A backend at another address of this machine, so that one port can have an agent at each.
async fn backend_at(ip: [u8; 4], name: &str) -> Backend {
    Backend::start_at(name, (ip, 0).into(), Duration::ZERO).await
}

#[tokio::test]
async fn an_agent_sets_the_share_of_its_endpoint() {
    // Of two endpoints only one has an agent that answers.
    let agent = Says::start("25%\n").await;
    let told = Backend::start("told").await;
    let other = backend_at([127, 0, 0, 2], "other").await;
    let heavy = |addr| Endpoint {
        weight: 100,
        ..Endpoint::ready(addr)
    };
    let policy = with_agent(AgentCheck {
        send: "how are you\n".into(),
        ..asked_at(agent.addr.port())
    });
    let both = host("a.test", &[])
        .endpoints(vec![heavy(told.addr), heavy(other.addr)])
        .policy(policy);
    let mut proxy = serve(&[both]);
    until("its share is 25", || {
        endpoint(&proxy, told.addr).effective_weight == 25.0
    })
    .await;
    assert_eq!(
        shares(&proxy, 100).await,
        BTreeMap::from([("told".into(), 20), ("other".into(), 80)])
    );
    assert_eq!(*agent.heard.lock().unwrap(), b"how are you\n");
    assert_eq!(endpoint(&proxy, other.addr).weight, 100);

    // An operator wants half of it besides, and neither forgets what the other wants.
    let half = Wish {
        weight_percent: Some(40),
        ..Wish::default()
    };
    proxy
        .backends()
        .wish("test", "a.test", 80, told.addr, half)
        .unwrap();
    assert_eq!(endpoint(&proxy, told.addr).effective_weight, 10.0);
    agent.say("50%");
    until("its share is 20", || {
        endpoint(&proxy, told.addr).effective_weight == 20.0
    })
    .await;

    // What an agent does not say, stays; also when it says nothing at all.
    agent.say("up maxconn:7\n");
    until("its limit is 7", || {
        endpoint(&proxy, told.addr).max_requests == Some(7)
    })
    .await;
    agent.say("");
    until("its agent is silent", || {
        endpoint(&proxy, told.addr)
            .last_agent_check
            .is_some_and(|last| !last.passed)
    })
    .await;
    let kept = endpoint(&proxy, told.addr);
    assert_eq!((kept.effective_weight, kept.max_requests), (20.0, Some(7)));
    agent.say("hello world \u{1F980} 5.5% maxconn:x \0\0");
    until("it talks nonsense", || {
        endpoint(&proxy, told.addr)
            .last_agent_check
            .is_some_and(|last| last.passed)
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).effective_weight, 20.0);
    agent.say(&"x".repeat(5000));
    until("it talks without an end", || {
        endpoint(&proxy, told.addr)
            .last_agent_check
            .is_some_and(|last| !last.passed)
    })
    .await;

    // Without a check of it, it has no say any more; the operator does.
    let silent = host("a.test", &[]).endpoints(vec![heavy(told.addr), heavy(other.addr)]);
    proxy.publisher.apply(table(&[silent])).unwrap();
    until("its share is 40", || {
        endpoint(&proxy, told.addr).effective_weight == 40.0
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).max_requests, None);
}

#[tokio::test]
async fn an_agent_drains_its_endpoint_and_what_runs_ends_in_peace() {
    let agent = Says::start("up ready\n").await;
    let told = Backend::start_at("told", ([127, 0, 0, 1], 0).into(), Duration::from_secs(2)).await;
    let other = backend_at([127, 0, 0, 2], "other").await;
    let proxy = serve(&[rule(
        &[told.addr, other.addr],
        with_agent(asked_at(agent.addr.port())),
    )]);
    let running: Vec<_> = (0..4)
        .map(|_| tokio::spawn(get(proxy.addr, "a.test", "/")))
        .collect();
    until("two are there", || {
        endpoint(&proxy, told.addr).in_flight == 2
    })
    .await;
    agent.say("drain");
    becomes(&proxy, told.addr, State::Draining).await;
    assert_eq!(
        shares(&proxy, 10).await,
        BTreeMap::from([("other".into(), 10)])
    );
    for answer in running {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(told.requests(), 2);
    // An operator wants it too: the word of one does not lift that of the other.
    let drain = |yes| Wish {
        drain: Some(yes),
        ..Wish::default()
    };
    proxy
        .backends()
        .wish("test", "a.test", 80, told.addr, drain(true))
        .unwrap();
    let checks = |told: &EndpointStatus| {
        told.reasons
            .iter()
            .map(|reason| reason.check)
            .collect::<Vec<_>>()
    };
    assert_eq!(checks(&endpoint(&proxy, told.addr)), ["operator", "agent"]);
    agent.say("ready");
    until("its agent wants it back", || {
        checks(&endpoint(&proxy, told.addr)) == ["operator"]
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).state, State::Draining);
    agent.say("maint");
    until("its agent does not", || {
        checks(&endpoint(&proxy, told.addr)).len() == 2
    })
    .await;
    proxy
        .backends()
        .wish("test", "a.test", 80, told.addr, drain(false))
        .unwrap();
    assert_eq!(checks(&endpoint(&proxy, told.addr)), ["agent"]);
    agent.say("ready");
    becomes(&proxy, told.addr, State::Available).await;
    // `Bar` has two of the agent; a series is there once.
    proxy.registry.gather();
    assert_eq!(proxy.metric("tidegate_endpoint_transitions_total"), 6.0);
}

#[tokio::test]
async fn a_check_and_an_agent_have_to_agree() {
    let (agent, health) = (Says::start("up").await, Says::status(200).await);
    let other = backend_at([127, 0, 0, 2], "other").await;
    let told = Backend::start("told").await;
    let policy = Policy {
        active_check: Some(ActiveCheck {
            port: Some(health.addr.port()),
            unhealthy_after: 1,
            ..check(http())
        }),
        ..with_agent(asked_at(agent.addr.port()))
    };
    let proxy = serve(&[rule(&[told.addr, other.addr], policy)]);
    let reasons = || {
        let told = endpoint(&proxy, told.addr);
        told.reasons
            .into_iter()
            .map(|reason| (reason.check, reason.why))
            .collect::<Vec<_>>()
    };
    agent.say("down #disk full\n");
    until("its agent says down", || {
        reasons() == [("agent", "the agent says down (disk full)".to_owned())]
    })
    .await;
    health.say_status(500);
    until("its check fails too", || reasons().len() == 2).await;
    agent.say("up");
    until("its agent says up", || {
        reasons() == [("active", "status 500".to_owned())]
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).state, State::Out);
    health.say_status(200);
    becomes(&proxy, told.addr, State::Available).await;
}

#[tokio::test]
async fn what_an_operator_wants_takes_effect_at_once_and_outlives_tables() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let both = [one.addr, two.addr];
    let mut proxy = serve(&[host("a.test", &both)]);
    let backends = proxy.backends();
    let wish = |wish| backends.wish("test", "a.test", 80, one.addr, wish);
    wish(Wish {
        drain: Some(true),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(
        shares(&proxy, 10).await,
        BTreeMap::from([("two".into(), 10)])
    );
    proxy
        .publisher
        .apply(table(&[host("a.test", &both), host("b.test", &both)]))
        .unwrap();
    assert_eq!(endpoint(&proxy, one.addr).state, State::Draining);
    assert_eq!(
        shares(&proxy, 10).await,
        BTreeMap::from([("two".into(), 10)])
    );
    wish(Wish {
        drain: Some(false),
        weight_percent: Some(25),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(
        shares(&proxy, 50).await,
        BTreeMap::from([("one".into(), 10), ("two".into(), 40)])
    );
    wish(Wish {
        max_requests: Some(Some(3)),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(endpoint(&proxy, one.addr).max_requests, Some(3));
    wish(Wish {
        max_requests: Some(None),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(endpoint(&proxy, one.addr).max_requests, None);
    let unknown = |service, addr| {
        let wished = backends.wish("test", service, 80, addr, Wish::default());
        wished.unwrap_err().to_string()
    };
    assert_eq!(
        unknown("x", one.addr),
        "no route leads to the service test/x:80"
    );
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(
        unknown("a.test", nobody),
        "127.0.0.1:1 is no endpoint of the service test/a.test:80"
    );
}
