//! When an endpoint is ejected and for how long: the tables of `docs/outliers.md`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use std::net::SocketAddr;

const NOW: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn config() -> OutlierDetection {
    OutlierDetection::default()
}

/// `.` good, `5` an error, `g` a gateway error, `n` no answer, `c` a good answer that broke off, `w` a whole one.
#[track_caller]
fn check(config: &OutlierDetection, replies: &str, expected: Option<Why>) {
    let outlier = Outlier::default();
    let mut last = None;
    for (n, reply) in replies.chars().enumerate() {
        assert_eq!(last, None, "{replies}: ejected before reply {n}");
        let came = |reply| outlier.came(reply, Some(ms(5)), NOW, config, NOW);
        last = match reply {
            '.' => came(Reply::Good),
            '5' => came(Reply::Error),
            'g' => came(Reply::GatewayError),
            'n' => came(Reply::Nothing),
            'c' => came(Reply::Good).or_else(|| outlier.broke_off(NOW, config)),
            _ => {
                let why = came(Reply::Good);
                outlier.was_whole();
                why
            }
        };
    }
    assert_eq!(last, expected, "{replies}");
}

#[test]
fn errors_in_a_row() {
    let five = config();
    let gateway = OutlierDetection {
        consecutive_errors: None,
        consecutive_gateway_errors: Some(3),
        ..config()
    };
    for (config, replies, expected) in [
        (&five, "5555", None),
        (&five, "55555", Some(Why::Errors(5))),
        (&five, "5gn5n", Some(Why::Errors(5))),
        (&five, "5555.5555", None),
        (&five, "nnnn.nnnnn", Some(Why::Errors(5))),
        (&five, "cccc", None),
        (&five, "ccccc", Some(Why::Cuts(5))),
        (&five, "ccccwcccc", None),
        // A long answer that has begun well but is not over proves nothing about those that broke off.
        (&five, "cccc.c", Some(Why::Cuts(5))),
        (&gateway, "555555", None),
        (&gateway, "gn", None),
        (&gateway, "gng", Some(Why::GatewayErrors(3))),
        (&gateway, "gn5gn", None),
        (&gateway, "ccc", Some(Why::Cuts(3))),
    ] {
        check(config, replies, expected);
    }
}

#[test]
fn a_policy_that_judges_by_nothing_ejects_nobody() {
    let nothing = OutlierDetection {
        consecutive_errors: None,
        unanswered: None,
        ..config()
    };
    check(&nothing, &"5gnc".repeat(50), None);
}

/// What an interval with these replies comes to.
fn interval(config: &OutlierDetection, good: usize, bad: usize, took: Duration) -> Option<Why> {
    let outlier = Outlier::default();
    assert_eq!(outlier.look(config, NOW), None);
    for n in 0..good + bad {
        let reply = if n < bad { Reply::Error } else { Reply::Good };
        assert_eq!(outlier.came(reply, Some(took), NOW, config, NOW), None);
    }
    assert_eq!(outlier.look(config, NOW + config.interval - ms(1)), None);
    outlier.look(config, NOW + config.interval)
}

#[test]
fn rates_over_an_interval() {
    let rate = OutlierDetection {
        consecutive_errors: None,
        success_rate: Some(90),
        ..config()
    };
    assert_eq!(interval(&rate, 18, 2, SECOND), None);
    assert_eq!(interval(&rate, 17, 3, SECOND), Some(Why::SuccessRate(85)));
    assert_eq!(interval(&rate, 0, 19, SECOND), None, "too few to tell");
    assert_eq!(interval(&rate, 0, 20, SECOND), Some(Why::SuccessRate(0)));
    let latency = OutlierDetection {
        consecutive_errors: None,
        latency: Some(ms(200)),
        ..config()
    };
    assert_eq!(interval(&latency, 20, 0, ms(200)), None);
    assert_eq!(
        interval(&latency, 20, 0, ms(201)),
        Some(Why::Latency(ms(201)))
    );
    assert_eq!(interval(&latency, 19, 0, SECOND), None, "too few to tell");
}

#[test]
fn ejections_grow_to_a_cap_and_shrink_with_good_conduct() {
    let config = config();
    let outlier = Outlier::default();
    let mut now = NOW;
    let mut eject = |outlier: &Outlier| {
        let time = outlier.eject(&config, now);
        assert!(!outlier.is_served(now + time - ms(1)));
        assert!(outlier.is_served(now + time));
        now += time;
        outlier.back(Some(&config), now);
        (time.as_secs(), now)
    };
    let times: Vec<_> = (0..12).map(|_| eject(&outlier).0).collect();
    let expected = [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300];
    assert_eq!(times, expected);
    let (_, mut back) = eject(&outlier);
    for _ in 0..4 {
        assert_eq!(outlier.look(&config, back + config.interval - ms(1)), None);
        back += config.interval;
        assert_eq!(outlier.look(&config, back), None);
    }
    // Nine times behind it that count, four intervals without: the sixth.
    assert_eq!(outlier.eject(&config, back).as_secs(), 180);
}

#[test]
fn an_ejection_is_never_shorter_than_its_base() {
    let config = OutlierDetection {
        ejection: SECOND * 30,
        max_ejection: SECOND * 10,
        ..config()
    };
    let outlier = Outlier::default();
    for _ in 0..3 {
        assert_eq!(outlier.eject(&config, NOW), SECOND * 30);
    }
}

#[test]
fn who_is_back_is_judged_afresh() {
    let config = config();
    let outlier = Outlier::default();
    let fail = |begun, now| outlier.came(Reply::Nothing, None, begun, &config, now);
    for _ in 0..4 {
        assert_eq!(fail(NOW, NOW), None);
    }
    assert!(fail(NOW, NOW).is_some());
    outlier.eject(&config, NOW);
    assert_eq!(fail(NOW, NOW + SECOND), None, "it is out already");
    let back = NOW + SECOND * 30;
    outlier.back(Some(&config), back);
    for _ in 0..100 {
        assert_eq!(fail(NOW, back + SECOND), None, "begun before");
    }
    for _ in 0..4 {
        assert_eq!(fail(back, back + SECOND), None);
    }
    assert!(fail(back, back + SECOND).is_some());
}

#[test]
fn one_may_always_be_ejected_and_never_more_than_the_share() {
    for (ejected, all, most, expected) in [
        (0, 1, 50, true),
        (0, 1, 0, true),
        (1, 2, 50, false),
        (0, 3, 10, true),
        (1, 3, 10, false),
        (1, 4, 50, true),
        (2, 4, 50, false),
        (3, 4, 100, true),
        (4, 4, 100, false),
        (499, 1000, 50, true),
        (500, 1000, 50, false),
    ] {
        assert_eq!(
            may_eject(ejected, all, most),
            expected,
            "{ejected} of {all} at {most} %"
        );
    }
}

/// A cluster of which the first endpoint answers nothing.
struct Cluster {
    all: Vec<Arc<EndpointState>>,
    config: OutlierDetection,
}

impl Cluster {
    fn new(count: u8) -> Self {
        let state = |n| EndpointState::new(SocketAddr::from(([10, 0, 0, n], 80)), Duration::ZERO);
        Self {
            all: (1..=count).map(|n| Arc::new(state(n))).collect(),
            config: config(),
        }
    }

    fn asked(&self, n: usize, at: Duration) -> crate::waiting::Ticket {
        self.all[n].conduct().asked(at)
    }

    /// A request that is answered.
    fn answers(&self, n: usize, at: Duration, took: Duration) {
        let (ticket, conduct) = (self.asked(n, at), self.all[n].conduct());
        conduct.left(ticket, at + took);
        let end = at + took;
        conduct
            .outlier
            .came(Reply::Good, Some(took), at, &self.config, end);
    }

    fn judged(&self, at: Duration) -> Option<Why> {
        unanswered(&self.all[0], &self.all, SECOND * 2, at)
    }
}

#[test]
fn who_answers_nothing_while_others_do_is_ejected_before_any_timeout() {
    let cluster = Cluster::new(2);
    for n in 0..10 {
        cluster.asked(0, NOW + ms(n * 100));
        cluster.answers(1, NOW + ms(n * 100), ms(5));
    }
    assert_eq!(cluster.judged(NOW + ms(1990)), None);
    let why = cluster.judged(NOW + ms(2000));
    assert_eq!(why, Some(Why::Unanswered(10, SECOND * 2)));
    cluster.answers(0, NOW + ms(2000), ms(5));
    assert_eq!(cluster.judged(NOW + ms(2010)), None, "it has answered");
    assert_eq!(
        cluster.judged(NOW + ms(9000)),
        None,
        "and got nothing since"
    );
}

#[test]
fn who_is_slow_where_all_are_slow_is_not_ejected() {
    // Nobody answers.
    let silent = Cluster::new(3);
    // The other waits as well, though it has answered something.
    let same = Cluster::new(2);
    // The other takes its time too.
    let slow = Cluster::new(2);
    // Alone.
    let single = Cluster::new(1);
    for n in 0..10 {
        let at = NOW + ms(n);
        for cluster in [&silent, &same, &slow, &single] {
            cluster.asked(0, at);
        }
        silent.asked(1, at);
        same.asked(1, at);
    }
    same.answers(1, NOW + ms(500), ms(5));
    slow.answers(1, NOW, ms(1000));
    for (name, cluster) in [("silent", &silent), ("same", &same), ("single", &single)] {
        assert_eq!(cluster.judged(NOW + SECOND * 9), None, "{name}");
    }
    assert_eq!(slow.judged(NOW + SECOND * 9), None);
    // But ten times of what the other takes is not slow any more.
    assert!(slow.judged(NOW + SECOND * 11).is_some());
}

#[test]
fn a_few_slow_requests_or_clients_that_leave_do_not_count() {
    let few = Cluster::new(2);
    few.asked(0, NOW);
    few.asked(0, NOW);
    few.answers(1, NOW + SECOND, ms(5));
    assert_eq!(few.judged(NOW + SECOND * 50), None, "two are not several");
    let left = Cluster::new(2);
    // Ten at a time, each for half a second.
    let mut waiting = std::collections::VecDeque::new();
    for n in 0..100 {
        let at = NOW + ms(n * 50);
        waiting.push_back(left.asked(0, at));
        left.answers(1, at, ms(5));
        if waiting.len() > 10 {
            let first = waiting.pop_front().unwrap();
            left.all[0].conduct().left(first, at);
        }
        assert_eq!(left.judged(at), None, "{n}");
    }
    let before = Cluster::new(2);
    for _ in 0..10 {
        before.asked(0, NOW);
    }
    before.all[0]
        .conduct()
        .back(Some(&before.config), NOW + SECOND);
    before.answers(1, NOW + SECOND, ms(5));
    before.asked(0, NOW + SECOND);
    assert_eq!(
        before.judged(NOW + SECOND * 9),
        None,
        "asked before it was back"
    );
}
