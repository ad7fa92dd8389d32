//! What fuzzers found worth keeping, again in every test run, and each with a few bytes changed.
use crate::fuzz::TARGETS;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// Changed copies of each input.
const CHANGED: u64 = 50;

#[test]
fn corpora_hold() {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    for (name, check) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fuzz/corpus")
            .join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let input = std::fs::read(entry.unwrap().path()).unwrap();
            check(&input);
            for n in 0..CHANGED {
                check(&changed(&input, seed.wrapping_add(n)));
            }
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
        println!("{name}: {inputs} inputs");
    }
}

/// The input with a byte replaced, taken out, or put in.
fn changed(input: &[u8], seed: u64) -> Vec<u8> {
    let mut random = seed;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below.max(1)
    };
    let mut changed = input.to_vec();
    for _ in 0..=next(3) {
        let at = next(changed.len());
        const LIKELY: &[u8] = b"\r\n \t:;,/.%#?0a\0\xff";
        let byte = LIKELY[next(LIKELY.len())];
        match next(3) {
            0 if at < changed.len() => changed[at] = byte,
            1 if at < changed.len() => drop(changed.remove(at)),
            _ => changed.insert(at.min(changed.len()), byte),
        }
    }
    changed
}
