//! Reads what `valgrind --tool=callgrind` writes: own cost of functions and files, and who calls whom how often.
//!
//! The format is that of the Callgrind manual, "Callgrind Format Specification": names are given once with a number and
//! by that number afterwards, positions may be relative, a `calls=` line is followed by the inclusive cost of the calls.

use std::collections::{BTreeMap, HashMap};

/// A profile, all its parts added up.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// Own cost by function.
    functions: HashMap<String, u64>,
    /// Own cost by the source file of the line, which is not the function's where code was inlined.
    files: HashMap<String, u64>,
    /// The file a function is in.
    homes: HashMap<String, String>,
    /// Caller, and who it calls: how often, with which inclusive cost.
    edges: HashMap<String, HashMap<String, Calls>>,
    pub(super) total: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Calls {
    pub(super) count: f64,
    pub(super) cost: f64,
}

/// Names by their numbers; functions and files have numbers of their own.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// The name in `(number) name` or `(number)`.
    fn resolve(&mut self, text: &str) -> String {
        let Some((number, name)) = text.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        else {
            return text.to_owned();
        };
        if !name.trim().is_empty() {
            self.0.insert(number.to_owned(), name.trim().to_owned());
        }
        self.0.get(number).cloned().unwrap_or_default()
    }
}

impl Profile {
    pub(super) fn read(text: &str) -> Self {
        let mut profile = Self::default();
        let (mut functions, mut files) = (Names::default(), Names::default());
        let (mut function, mut file) = (String::new(), String::new());
        let (mut callee, mut calls) = (String::new(), None);
        for line in text.lines() {
            match line.split_once('=') {
                Some(("fn", name)) => {
                    // A function in a recursion is told apart by 'N at its end.
                    function = plain(&functions.resolve(name));
                    profile.homes.insert(function.clone(), file.clone());
                }
                Some(("fl" | "fi" | "fe", name)) => file = files.resolve(name),
                Some(("cfi" | "cfl", name)) => drop(files.resolve(name)),
                Some(("cfn", name)) => callee = plain(&functions.resolve(name)),
                Some(("calls", rest)) => calls = number(rest.split(' ').next()),
                _ if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) => {
                    let Some(cost) = number(line.split(' ').nth(1)) else {
                        continue;
                    };
                    if let Some(count) = calls.take() {
                        let called = profile.edges.entry(function.clone()).or_default();
                        let edge = called.entry(callee.clone()).or_default();
                        edge.count += count as f64;
                        edge.cost += cost as f64;
                    } else {
                        *profile.functions.entry(function.clone()).or_default() += cost;
                        *profile.files.entry(file.clone()).or_default() += cost;
                        profile.total += cost;
                    }
                }
                _ => {}
            }
        }
        profile
    }

    /// Functions by own cost, the dearest first, each with its file.
    pub(super) fn dearest(&self) -> Vec<(u64, &str, &str)> {
        let mut all: Vec<_> = self
            .functions
            .iter()
            .map(|(name, cost)| (*cost, name.as_str(), self.home(name)))
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }

    /// Own cost by crate, and within this workspace by file.
    pub(super) fn places(&self) -> Vec<(u64, String)> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (file, cost) in &self.files {
            *sums.entry(place(file)).or_default() += cost;
        }
        let mut all: Vec<_> = sums
            .into_iter()
            .map(|(place, cost)| (cost, place))
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }

    /// Who calls these functions. A caller that is not of this workspace passes its part on to its own callers, by how
    /// often each calls it: exact where it always calls on, and else a guess.
    pub(super) fn callers(&self, targets: impl Fn(&str) -> bool) -> Vec<(Calls, &str)> {
        let mut incoming: HashMap<&str, Vec<(&str, Calls)>> = HashMap::new();
        for (caller, called) in &self.edges {
            for (callee, calls) in called {
                incoming.entry(callee).or_default().push((caller, *calls));
            }
        }
        let mut charged: HashMap<&str, Calls> = HashMap::new();
        let mut left: Vec<(&str, Calls, u32)> = Vec::new();
        for (callee, callers) in &incoming {
            if targets(callee) {
                let outside = callers.iter().filter(|(caller, _)| !targets(caller));
                left.extend(outside.map(|(caller, calls)| (*caller, *calls, 0)));
            }
        }
        while let Some((function, part, depth)) = left.pop() {
            let callers = incoming
                .get(function)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let sum: f64 = callers.iter().map(|(_, calls)| calls.count).sum();
            if depth == 8 || sum == 0.0 || is_ours(self.home(function)) {
                let whole = charged.entry(function).or_default();
                whole.count += part.count;
                whole.cost += part.cost;
                continue;
            }
            for (caller, calls) in callers {
                let share = calls.count / sum;
                let part = Calls {
                    count: part.count * share,
                    cost: part.cost * share,
                };
                // What is next to nothing would only multiply.
                if part.count >= 1.0 {
                    left.push((caller, part, depth + 1));
                }
            }
        }
        let mut all: Vec<_> = charged
            .into_iter()
            .map(|(name, calls)| (calls, name))
            .collect();
        all.sort_by(|a, b| b.0.count.total_cmp(&a.0.count).then(a.1.cmp(b.1)));
        all
    }

    fn home(&self, function: &str) -> &str {
        self.homes.get(function).map_or("", String::as_str)
    }
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

fn plain(name: &str) -> String {
    match name.rsplit_once('\'') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        _ => name.to_owned(),
    }
}

fn is_ours(file: &str) -> bool {
    place(file).starts_with("crates/")
}

/// A file of this workspace from `crates/` on; else the crate or library it is of.
pub(super) fn place(file: &str) -> String {
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        let name = rest.split('/').nth(1).unwrap_or(rest);
        // `name-1.2.3`; a name may have hyphens, a version begins with a digit.
        let end = name
            .match_indices('-')
            .find(|(at, _)| name[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
        return end.map_or(name, |(at, _)| &name[..at]).to_owned();
    }
    if file.starts_with("/rustc/") {
        return "Rust's standard library".into();
    }
    match file.find("/crates/") {
        Some(at) => file[at + 1..].to_owned(),
        None if file.contains("sysdeps") || file.contains("nptl") || file.starts_with("./") => {
            "libc".into()
        }
        None => "else".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "version: 1\nevents: Ir\n\nob=(1) /bin/x\nfl=(1) /src/crates/a/src/lib.rs\nfn=(1) a::run\n\
        10 5\n+1 7\ncfi=(2) /cargo/registry/src/index/http-1.5.0/src/map.rs\ncfn=(2) http::get'2\ncalls=3 20\n* 30\n\
        fi=(2)\n22 4\nfe=(1)\n-1 1\n\nfl=(2)\nfn=(2)\n20 30\ncfn=(3) mi_malloc\ncalls=6 1\n20 60\n\nfn=(3)\n1 60\n";

    #[test]
    fn own_cost_is_by_function_and_by_file() {
        let profile = Profile::read(PROFILE);
        let dearest: Vec<_> = profile
            .dearest()
            .into_iter()
            .map(|(c, n, _)| (c, n))
            .collect();
        assert_eq!(
            dearest,
            [(60, "mi_malloc"), (30, "http::get"), (17, "a::run")]
        );
        assert_eq!(
            profile.places(),
            [
                (94, "http".to_owned()),
                (13, "crates/a/src/lib.rs".to_owned())
            ]
        );
        assert_eq!(profile.total, 107);
    }

    #[test]
    fn calls_are_charged_to_the_nearest_caller_of_ours() {
        let profile = Profile::read(PROFILE);
        let callers = profile.callers(|name| name == "mi_malloc");
        let calls = Calls {
            count: 6.0,
            cost: 60.0,
        };
        assert_eq!(callers, [(calls, "a::run")]);
    }

    #[test]
    fn a_place_is_a_crate_or_a_file_of_ours() {
        for (file, expected) in [
            (
                "/x/registry/src/index-1/libmimalloc-sys-0.1.49/c_src/a.c",
                "libmimalloc-sys",
            ),
            (
                "/rustc/0/library/core/src/fmt/mod.rs",
                "Rust's standard library",
            ),
            (
                "/somewhere/crates/data-plane/src/proxy.rs",
                "crates/data-plane/src/proxy.rs",
            ),
            ("./string/../sysdeps/x86_64/multiarch/memmove.S", "libc"),
            ("???", "else"),
        ] {
            assert_eq!(place(file), expected);
        }
    }
}
