//! What of an endpoint's answer times counts, on a simulated clock; and that nothing is lost between threads.

use super::*;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A window of answers a millisecond apart that took 1 ms, 2 ms and so on.
fn rising(samples: u64) -> Window {
    let window = Window::default();
    (1..=samples).for_each(|n| window.note(millis(n), millis(n)));
    window
}

#[track_caller]
fn check(window: &Window, now: Duration, expected: Option<u64>) {
    let expected = expected.map(|millis| millis as u32 * 1000);
    assert_eq!(window.p90(now), expected);
}

#[test]
fn nine_of_ten_do_not_take_longer() {
    for (samples, expected) in [
        (0, None),
        (4, None),
        (5, Some(5)),
        (10, Some(9)),
        (20, Some(18)),
        (500, Some(450)),
        // The first 500 were overwritten: 501 to 1000.
        (1000, Some(950)),
    ] {
        check(&rising(samples), millis(samples), expected);
    }
}

#[test]
fn one_slow_answer_of_ten_does_not_count_and_two_do() {
    for (slow, expected) in [(1, 5), (2, 50)] {
        for samples in [10, 20, 500] {
            let window = Window::default();
            for n in 0..samples {
                let took = if n % 10 < slow { 50 } else { 5 };
                window.note(millis(took), millis(n));
            }
            check(&window, millis(samples), Some(expected));
        }
    }
}

#[test]
fn old_answers_are_forgotten_but_for_the_last() {
    let window = Window::default();
    (0..20).for_each(|n| window.note(millis(50), millis(n)));
    (0..10).for_each(|n| window.note(millis(5), millis(3000 + n)));
    check(&window, millis(3100), Some(50));
    check(&window, millis(5019), Some(5));
    // The last five, whatever their age.
    check(&window, millis(3_600_000), Some(5));
    window.note(millis(70), millis(3_600_000));
    check(&window, millis(3_600_000), Some(70));
}

#[test]
fn a_clock_that_is_behind_or_went_round_is_no_matter() {
    let window = Window::default();
    (0..5).for_each(|_| window.note(millis(5), millis(1000)));
    check(&window, millis(990), Some(5));
    let round = 1 << 32;
    (0..5).for_each(|n| window.note(millis(7), millis(round - 2 + n)));
    check(&window, millis(round + 10), Some(7));
}

#[test]
fn threads_lose_and_mix_nothing() {
    let window = Window::default();
    std::thread::scope(|scope| {
        for thread in 1..=8u64 {
            let window = &window;
            // Each thread writes pairs that belong together.
            scope.spawn(move || {
                (0..1000).for_each(|_| window.note(millis(thread), millis(thread * 100)));
            });
        }
    });
    assert_eq!(window.next.load(Ordering::Relaxed), 8000);
    for sample in &window.samples {
        let sample = sample.load(Ordering::Relaxed);
        let (at, took) = (sample >> 32, sample & u64::from(u32::MAX));
        assert!(at > 0 && at * 10 == took, "{at} {took}");
    }
}
