//! What becomes of an endpoint whose probes pass or fail, and when probes are made.

use super::*;

#[tokio::test]
async fn an_endpoint_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (bad, good) = (Says::status(200).await, Backend::start("good").await);
    let proxy = serve(&[rule(&[bad.addr, good.addr], checked(check(http())))]);
    more_checks(&proxy, 6.0).await;
    assert_eq!(endpoint(&proxy, bad.addr).state, State::Available);
    bad.say_status(500);
    becomes(&proxy, bad.addr, State::Out).await;
    let told = endpoint(&proxy, bad.addr);
    assert_eq!(told.reasons.len(), 1);
    assert_eq!(
        (told.reasons[0].check, &*told.reasons[0].why),
        ("active", "status 500")
    );
    assert!(told.reasons[0].since.unwrap() < Duration::from_secs(20));
    let last = told.last_check.unwrap();
    assert_eq!(
        (last.kind, last.passed, &*last.why),
        ("http", false, "status 500")
    );
    assert!(!told.gets_requests);
    for _ in 0..10 {
        assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "good");
    }
    let shown = prometheus::TextEncoder::new()
        .encode_to_string(&proxy.registry.gather())
        .unwrap();
    for line in [
        r#"tidegate_endpoint_transitions_total{check="active",to="out"} 1"#,
        r#"tidegate_endpoints{namespace="test",port="80",service="a.test",state="available"} 1"#,
        r#"tidegate_endpoints{namespace="test",port="80",service="a.test",state="out"} 1"#,
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    bad.say_status(204);
    becomes(&proxy, bad.addr, State::Available).await;
    until("it gets requests", || {
        endpoint(&proxy, bad.addr).gets_requests
    })
    .await;
    let before = bad.asked();
    let heard = String::from_utf8(bad.heard.lock().unwrap().clone()).unwrap();
    assert!(
        heard.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"),
        "{heard}"
    );
    more_checks(&proxy, 4.0).await;
    assert!(bad.asked() > before);
}

#[tokio::test]
async fn what_is_good_of_a_status_is_said_by_the_policy() {
    let teapot = Says::status(418).await;
    let kind = CheckKind::Http {
        method: "HEAD".into(),
        path: "/x?y=z".into(),
        host: Some("h.test".into()),
        expected: vec![StatusRange {
            first: 418,
            last: 418,
        }],
    };
    let only = ActiveCheck {
        unhealthy_after: 1,
        healthy_after: 1,
        ..check(kind)
    };
    let proxy = serve(&[rule(&[teapot.addr], checked(only))]);
    more_checks(&proxy, 2.0).await;
    assert_eq!(endpoint(&proxy, teapot.addr).state, State::Available);
    let heard = String::from_utf8(teapot.heard.lock().unwrap().clone()).unwrap();
    assert!(
        heard.starts_with("HEAD /x?y=z HTTP/1.1\r\nHost: h.test\r\n"),
        "{heard}"
    );
    teapot.say_status(200);
    becomes(&proxy, teapot.addr, State::Out).await;
}

#[tokio::test]
async fn the_first_probe_is_at_once_and_a_table_more_begins_none_again() {
    let (one, two) = (Says::status(200).await, Says::status(200).await);
    let slow = ActiveCheck {
        interval: LONG,
        ..check(http())
    };
    let first = Instant::now();
    let mut proxy = serve(&[rule(&[one.addr], checked(slow.clone()))]);
    until("the first probe", || one.asked() == 1).await;
    // A few milliseconds on a machine that is not loaded.
    assert!(
        first.elapsed() < Duration::from_secs(5),
        "{:?}",
        first.elapsed()
    );
    for _ in 0..5 {
        proxy
            .publisher
            .apply(table(&[rule(&[one.addr, two.addr], checked(slow.clone()))]))
            .unwrap();
        until("that of another one", || two.asked() == 1).await;
    }
    proxy
        .metric_becomes("tidegate_health_probes_total", 2.0)
        .await;
    assert_eq!((one.asked(), two.asked()), (1, 1));
    // Another check begins anew; gone is gone.
    let quick = checked(check(http()));
    proxy
        .publisher
        .apply(table(&[rule(&[one.addr], quick)]))
        .unwrap();
    until("many probes", || one.asked() > 5).await;
    assert_eq!(two.asked(), 1);
    proxy
        .publisher
        .apply(table(&[rule(&[two.addr], Policy::default())]))
        .unwrap();
    let open = || proxy.metric("tidegate_health_probes_total");
    until("nothing is probed any more", || {
        let before = open();
        std::thread::sleep(4 * SHORT);
        open() == before
    })
    .await;
}

#[tokio::test]
async fn nobody_holds_up_the_probes_of_others() {
    // Connections are accepted by the kernel and never answered.
    let holes: Vec<_> = (0..25)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut addrs: Vec<_> = holes
        .iter()
        .map(|hole| hole.local_addr().unwrap())
        .collect();
    let mut good = Vec::new();
    for _ in 0..25 {
        good.push(Says::status(200).await);
    }
    addrs.extend(good.iter().map(|good| good.addr));
    let patient = ActiveCheck {
        timeout: Duration::from_secs(30),
        interval: Duration::from_millis(100),
        ..check(http())
    };
    let start = Instant::now();
    let proxy = serve(&[rule(&addrs, checked(patient))]);
    until("ten probes of each that answers", || {
        good.iter().all(|good| good.asked() >= 10)
    })
    .await;
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    // Not one of the others has had its answer by now.
    for hole in &addrs[..25] {
        assert_eq!(endpoint(&proxy, *hole).last_check, None);
    }
}

#[tokio::test]
async fn one_probe_at_a_time_and_a_timeout_is_a_failure() {
    let slow = Says::status(200).await;
    *slow.delay.lock().unwrap() = Duration::from_secs(3600);
    let impatient = ActiveCheck {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(150),
        unhealthy_after: 2,
        ..check(http())
    };
    let proxy = serve(&[rule(&[slow.addr], checked(impatient))]);
    becomes(&proxy, slow.addr, State::Out).await;
    assert_eq!(
        endpoint(&proxy, slow.addr).reasons[0].why,
        "no answer in 150ms"
    );
    let late = Says::status(200).await;
    *late.delay.lock().unwrap() = Duration::from_millis(150);
    let patient = ActiveCheck {
        interval: Duration::from_millis(10),
        ..check(http())
    };
    let proxy = serve(&[rule(&[late.addr], checked(patient))]);
    more_checks(&proxy, 4.0).await;
    // The end of a connection may be seen here after the next one has begun there.
    assert!(late.at_once.lock().unwrap().0 <= 2);
}

#[tokio::test]
async fn who_starts_out_comes_in_with_its_first_good_answer() {
    let (slow, other) = (Says::status(200).await, Backend::start("other").await);
    let careful = ActiveCheck {
        starts_healthy: false,
        healthy_after: 5,
        interval: LONG,
        timeout: LONG,
        ..check(http())
    };
    let mut proxy = serve(&[rule(&[other.addr], checked(careful.clone()))]);
    becomes(&proxy, other.addr, State::Available).await;
    *slow.delay.lock().unwrap() = Duration::from_secs(2);
    proxy
        .publisher
        .apply(table(&[rule(&[slow.addr, other.addr], checked(careful))]))
        .unwrap();
    let told = endpoint(&proxy, slow.addr);
    assert_eq!(
        (told.state, &*told.reasons[0].why),
        (State::Out, "not checked yet")
    );
    assert_eq!(
        get(proxy.addr, "a.test", "/").await.unwrap().text(),
        "other"
    );
    becomes(&proxy, slow.addr, State::Available).await;
}

#[tokio::test]
async fn nobody_stays_out_by_a_check_there_is_no_more() {
    let (bad, good) = (Says::status(500).await, Backend::start("good").await);
    let both = [bad.addr, good.addr];
    let mut proxy = serve(&[rule(&both, checked(check(http())))]);
    becomes(&proxy, bad.addr, State::Out).await;
    // Another check judges anew, from where the last one was.
    proxy
        .publisher
        .apply(table(&[rule(&both, checked(check(CheckKind::Tcp)))]))
        .unwrap();
    becomes(&proxy, bad.addr, State::Available).await;
    proxy
        .publisher
        .apply(table(&[rule(&both, checked(check(http())))]))
        .unwrap();
    becomes(&proxy, bad.addr, State::Out).await;
    proxy
        .publisher
        .apply(table(&[rule(&both, Policy::default())]))
        .unwrap();
    becomes(&proxy, bad.addr, State::Available).await;
    assert_eq!(endpoint(&proxy, bad.addr).last_check, None);
}

#[tokio::test]
async fn health_is_ignored_when_nobody_is_left() {
    let bad = Says::status(503).await;
    let proxy = serve(&[rule(&[bad.addr], checked(check(http())))]);
    becomes(&proxy, bad.addr, State::Out).await;
    let cluster = proxy.backends().read().remove(0);
    assert!(cluster.ignores_health && cluster.endpoints[0].gets_requests);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 503);
}

#[tokio::test]
async fn another_port_can_be_probed() {
    let (health, serving) = (Says::status(500).await, Backend::start("web").await);
    let elsewhere = ActiveCheck {
        port: Some(health.addr.port()),
        ..check(http())
    };
    let proxy = serve(&[rule(&[serving.addr], checked(elsewhere))]);
    becomes(&proxy, serving.addr, State::Out).await;
    health.say_status(200);
    becomes(&proxy, serving.addr, State::Available).await;
    assert_eq!(serving.requests(), 0);
}
