//! Rate limits on a clock of their own.

use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

fn limit(requests: u32, at_once: u32) -> RateLimit {
    RateLimit {
        requests,
        per: Duration::from_secs(1),
        at_once,
        exempt: vec!["10.0.0.0/8".parse().unwrap()],
    }
}

fn client(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn one_client_may_ask_so_often() {
    let (limiter, limit) = (RateLimiter::default(), limit(10, 10));
    for _ in 0..10 {
        assert_eq!(limiter.admit(&limit, client(1), at(5)), Ok(()));
    }
    assert_eq!(limiter.admit(&limit, client(1), at(5)), Err(at(100)));
    assert_eq!(limiter.admit(&limit, client(1), at(55)), Err(at(50)));
    assert_eq!(limiter.admit(&limit, client(2), at(55)), Ok(()));
    // What was refused is not counted.
    assert_eq!(limiter.admit(&limit, client(1), at(105)), Ok(()));
    assert_eq!(limiter.admit(&limit, client(1), at(105)), Err(at(100)));
    // After a rest there is the whole allowance again, and no more.
    let again = || limiter.admit(&limit, client(1), at(9_000)).is_ok();
    assert_eq!((0..100).filter(|_| again()).count(), 10);
    for _ in 0..100 {
        assert_eq!(
            limiter.admit(&limit, IpAddr::from([10, 1, 2, 3]), at(0)),
            Ok(())
        );
    }
}

#[test]
fn a_changed_limit_forgets_nobody_and_punishes_nobody() {
    let limiter = RateLimiter::default();
    let slow = RateLimit {
        per: Duration::from_secs(60),
        ..limit(1, 100)
    };
    for _ in 0..100 {
        assert_eq!(limiter.admit(&slow, client(1), at(0)), Ok(()));
    }
    assert!(limiter.admit(&slow, client(1), at(0)).is_err());
    let fast = limit(10, 10);
    assert_eq!(limiter.admit(&fast, client(1), at(0)), Err(at(100)));
    assert!(
        limiter
            .admit(&fast, client(1), at(100))
            .is_err_and(|wait| wait <= at(100))
    );
}

#[test]
fn a_customer_of_ipv6_is_one_client() {
    let (limiter, limit) = (RateLimiter::default(), limit(1, 1));
    let of =
        |network: u16, host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
    assert_eq!(limiter.admit(&limit, of(1, 1), at(0)), Ok(()));
    assert!(limiter.admit(&limit, of(1, 2), at(0)).is_err());
    assert_eq!(limiter.admit(&limit, of(2, 1), at(0)), Ok(()));
}

#[test]
fn memory_is_bounded_and_who_is_active_is_remembered() {
    let (limiter, limit) = (RateLimiter::default(), limit(1, 1));
    let busy = client(1);
    for number in 0..4 * MOST as u32 {
        let now = Duration::from_millis(u64::from(number));
        let _ = limiter.admit(&limit, busy, now);
        let _ = limiter.admit(&limit, IpAddr::V4(Ipv4Addr::from_bits(number)), now);
        assert!(limiter.admit(&limit, busy, now).is_err(), "{number}");
    }
    assert!(limiter.len() <= MOST);
}

#[test]
fn workers_count_together() {
    let (limiter, limit, admitted) = (RateLimiter::default(), limit(1, 1000), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if limiter.admit(&limit, client(1), at(0)).is_ok() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1000);
}
