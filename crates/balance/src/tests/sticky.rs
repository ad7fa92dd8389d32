//! Who is remembered for how long, who is forgotten when the table is full, and threads that share it.

use super::*;
use crate::order::mix;

const KEEP: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A client that is in the same shard as all others of this function.
fn neighbour(n: u64) -> u64 {
    n * SHARDS as u64
}

#[test]
fn a_client_is_remembered_until_it_was_silent_for_too_long() {
    let table = Sticky::default();
    assert_eq!(table.place(1, KEEP, at(0)), None);
    table.remember(1, 7, KEEP, at(0));
    // Each look starts its time again.
    for seconds in [60, 120, 180] {
        assert_eq!(table.place(1, KEEP, at(seconds)), Some(7));
    }
    assert_eq!(table.place(2, KEEP, at(180)), None);
    assert_eq!(table.place(1, KEEP, at(241)), None);
    table.remember(1, 8, KEEP, at(241));
    assert_eq!(table.place(1, KEEP, at(300)), Some(8));
    assert_eq!(table.len(), 1);
}

#[test]
fn a_full_table_forgets_who_was_silent_for_longest() {
    let table = Sticky::holding(3 * SHARDS);
    for n in 1..=3 {
        table.remember(neighbour(n), n, KEEP, at(n));
    }
    assert_eq!(table.place(neighbour(1), KEEP, at(10)), Some(1));
    table.remember(neighbour(4), 4, KEEP, at(11));
    table.remember(neighbour(5), 5, KEEP, at(12));
    let known = (1..=5).map(|n| table.place(neighbour(n), KEEP, at(13)));
    assert_eq!(
        known.collect::<Vec<_>>(),
        [Some(1), None, None, Some(4), Some(5)]
    );
}

#[test]
fn whoever_is_silent_makes_room_without_being_asked_for() {
    let table = Sticky::default();
    (1..=1000).for_each(|n| table.remember(neighbour(n), n, KEEP, at(0)));
    (1001..=1600).for_each(|n| table.remember(neighbour(n), n, KEEP, at(61)));
    assert_eq!(table.len(), 600);
    let shard = lock(&table.shards[0]);
    assert_eq!(shard.queue.len(), 600);
}

#[test]
fn a_flood_of_clients_is_bounded() {
    let table = Sticky::default();
    for n in 0..3 * MOST as u64 {
        table.remember(mix(n), n, KEEP, at(0));
        assert!(n % 1000 > 0 || table.len() <= MOST);
    }
    let queued: usize = table.shards.iter().map(|one| lock(one).queue.len()).sum();
    assert_eq!(queued, table.len());
    assert!(table.len() > MOST * 9 / 10);
}

#[test]
fn threads_agree() {
    let table = Sticky::default();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..20 {
                    for n in 0..500 {
                        let client = mix(n + 500 * thread);
                        if round == 0 {
                            table.remember(client, n, KEEP, at(0));
                        }
                        assert_eq!(table.place(client, KEEP, at(round)), Some(n));
                    }
                }
            });
        }
    });
    assert_eq!(table.len(), 4000);
}
