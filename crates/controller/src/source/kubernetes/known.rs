//! Which objects of a place are known, by name and version. Pure.
//!
//! It answers two questions. Is an event news, or the past once more? And may a list be believed in which most objects are
//! missing? A server that answers 200 with an empty list, as after a failed restore, must not empty the routing table at
//! once; a second list that says the same is believed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use translate::ObjectKey;

/// Fewer objects than this may vanish at once.
const FEW: usize = 10;
/// How many deleted objects are remembered.
const TOMBSTONES: usize = 1024;

/// The objects of one kind in one place.
#[derive(Debug, Default)]
pub(super) struct Known {
    versions: HashMap<ObjectKey, u64>,
    /// Missing from the last list, kept until the next one.
    doubtful: BTreeSet<ObjectKey>,
    /// The last deleted objects with the versions they were deleted at.
    deleted: VecDeque<(ObjectKey, u64)>,
}

/// What a list comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// These are gone.
    Gone(Vec<ObjectKey>),
    /// So many are missing that a second list must say so too.
    Doubtful(usize),
}

impl Known {
    /// Takes a list in. Nothing listed is doubtful any more.
    pub(super) fn listed(&mut self, listed: impl Iterator<Item = (ObjectKey, u64)>) -> Listing {
        let versions: HashMap<ObjectKey, u64> = listed.collect();
        let mut missing: Vec<_> = self
            .versions
            .keys()
            .filter(|key| !versions.contains_key(*key))
            .cloned()
            .collect();
        missing.sort();
        let doubt = self.doubtful.is_empty()
            && self.versions.len() > FEW
            && missing.len() * 2 > self.versions.len();
        self.versions = versions;
        self.deleted.clear();
        self.doubtful.clear();
        if !doubt {
            return Listing::Gone(missing);
        }
        let count = missing.len();
        // Whatever comes of them is news: the server may have been restored to a time before they were made.
        self.versions
            .extend(missing.iter().map(|key| (key.clone(), 0)));
        self.doubtful.extend(missing);
        Listing::Doubtful(count)
    }

    /// Whether this object is news.
    pub(super) fn applied(&mut self, key: &ObjectKey, version: u64) -> bool {
        let deleted = self
            .deleted
            .iter()
            .any(|(known, at)| known == key && *at > version);
        if deleted || self.versions.get(key).is_some_and(|known| *known > version) {
            return false;
        }
        self.doubtful.remove(key);
        self.versions.insert(key.clone(), version);
        true
    }

    /// Whether this deletion is news.
    pub(super) fn deleted(&mut self, key: &ObjectKey, version: u64) -> bool {
        if self.versions.get(key).is_some_and(|known| *known > version) {
            return false;
        }
        self.doubtful.remove(key);
        self.versions.remove(key);
        self.deleted.push_back((key.clone(), version));
        if self.deleted.len() > TOMBSTONES {
            self.deleted.pop_front();
        }
        true
    }
}

/// A resource version as a number, as Kubernetes promises it to be since 1.35; 0 where it is none, which is always news.
pub(super) fn version(resource_version: Option<&str>) -> u64 {
    resource_version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ObjectKey {
        ObjectKey::new("shop", &format!("{n:03}"))
    }

    fn list(known: &mut Known, objects: impl Iterator<Item = usize>, version: u64) -> Listing {
        known.listed(objects.map(|n| (key(n), version)))
    }

    #[track_caller]
    fn check(before: usize, after: usize, believed: bool) {
        let mut known = Known::default();
        assert_eq!(list(&mut known, 0..before, 1), Listing::Gone(vec![]));
        let listing = list(&mut known, 0..after, 2);
        assert_eq!(
            matches!(listing, Listing::Gone(_)),
            believed,
            "{before} objects became {after}: {listing:?}"
        );
        if !believed {
            assert_eq!(
                list(&mut known, 0..after, 3),
                Listing::Gone((after..before).map(key).collect()),
                "the second list counts"
            );
        }
    }

    #[test]
    fn a_list_without_most_objects_is_believed_the_second_time() {
        check(10, 0, true);
        check(11, 0, false);
        check(100, 50, true);
        check(100, 49, false);
        check(100, 0, false);
        check(0, 0, true);
    }

    #[test]
    fn a_list_that_has_them_again_ends_the_doubt() {
        let mut known = Known::default();
        list(&mut known, 0..100, 1);
        assert_eq!(list(&mut known, 0..0, 2), Listing::Doubtful(100));
        assert_eq!(list(&mut known, 0..100, 3), Listing::Gone(vec![]));
        assert_eq!(list(&mut known, 0..0, 4), Listing::Doubtful(100));
    }

    #[test]
    fn events_about_doubtful_objects_count() {
        let mut known = Known::default();
        list(&mut known, 0..100, 50);
        list(&mut known, 0..0, 10);
        assert!(
            known.applied(&key(1), 11),
            "made anew after a restore, with an older version"
        );
        assert!(known.deleted(&key(2), 12));
        assert_eq!(
            list(&mut known, 1..2, 13),
            Listing::Gone((0..100).filter(|n| ![1, 2].contains(n)).map(key).collect())
        );
    }

    #[test]
    fn the_past_is_no_news() {
        let mut known = Known::default();
        list(&mut known, 0..2, 5);
        assert!(known.applied(&key(0), 7));
        assert!(!known.applied(&key(0), 6), "an older version");
        assert!(
            known.applied(&key(0), 7),
            "a replay of the newest changes nothing"
        );
        assert!(
            !known.deleted(&key(0), 6),
            "deleted before it was made again"
        );
        assert!(known.deleted(&key(0), 8));
        assert!(!known.applied(&key(0), 7), "it is gone");
        assert!(known.applied(&key(0), 9), "it was made again");
        assert!(
            known.deleted(&key(5), version(None)) && known.applied(&key(5), version(None)),
            "no version says nothing"
        );
    }

    #[test]
    fn events_in_any_order_and_any_number_come_to_the_same() {
        // Every order of five events about two objects, each twice.
        let events = [
            (0, 11, true),
            (0, 12, false),
            (0, 13, true),
            (1, 14, false),
            (0, 15, true),
        ];
        for seed in 0..120 {
            let (mut order, mut rest, mut n): (Vec<_>, Vec<_>, usize) =
                (vec![], events.to_vec(), seed);
            while !rest.is_empty() {
                order.push(rest.remove(n % rest.len()));
                n /= rest.len() + 1;
            }
            order.extend(order.clone());
            let mut known = Known::default();
            list(&mut known, 0..2, 10);
            let mut there = BTreeSet::from([0, 1]);
            for (object, version, applied) in &order {
                if *applied && known.applied(&key(*object), *version) {
                    there.insert(*object);
                } else if !applied && known.deleted(&key(*object), *version) {
                    there.remove(object);
                }
            }
            assert_eq!(there, BTreeSet::from([0]), "{order:?}");
        }
    }
}
