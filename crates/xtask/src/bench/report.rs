//! Tables of what was measured, as Markdown: medians with their range, ratios of the same rounds, and the bars.

use super::case::{Bar, Case};
use super::peer::Peer;
use std::collections::BTreeMap;

/// The figures of each round.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<(Case, Peer), Vec<f64>>);

impl Results {
    pub(super) fn add(&mut self, case: Case, peer: Peer, figure: f64) {
        self.0.entry((case, peer)).or_default().push(figure);
    }

    fn of(&self, case: Case, peer: Peer) -> &[f64] {
        self.0
            .get(&(case, peer))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Every table.
    pub(super) fn print(&self, cases: &[Case], peers: &[Peer]) {
        let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
        println!("\nCPU time of the proxy (memory for idle connections), median (least..most):\n");
        println!("| case | unit | {} |", names.join(" | "));
        println!("|---|---|{}", "---|".repeat(peers.len()));
        for case in cases {
            let cells: Vec<_> = peers
                .iter()
                .map(|peer| summary(self.of(*case, *peer)))
                .collect();
            println!(
                "| {} | {} | {} |",
                case.name(),
                case.unit(),
                cells.join(" | ")
            );
        }
        let others: Vec<_> = peers
            .iter()
            .copied()
            .filter(|peer| *peer != Peer::Tidegate)
            .collect();
        if others.len() < peers.len() && !others.is_empty() {
            self.ratios(cases, &others);
            self.bars(cases);
        }
    }

    fn ratios(&self, cases: &[Case], others: &[Peer]) {
        let names: Vec<_> = others.iter().map(|peer| peer.name()).collect();
        println!("\nTidegate against each, ratio of the same rounds, median (least..most):\n");
        println!("| case | {} |", names.join(" | "));
        println!("|---|{}", "---|".repeat(others.len()));
        for case in cases {
            let ours = self.of(*case, Peer::Tidegate);
            let cells: Vec<_> = others
                .iter()
                .map(|peer| summary(&ratios(ours, self.of(*case, *peer))))
                .collect();
            println!("| {} | {} |", case.name(), cells.join(" | "));
        }
        let many = ratios(
            self.of(Case::Hosts10000, Peer::Tidegate),
            self.of(Case::C64, Peer::Tidegate),
        );
        if !many.is_empty() {
            println!(
                "\nTidegate with 10,000 hosts against 10: {}",
                summary(&many)
            );
        }
    }

    fn bars(&self, cases: &[Case]) {
        println!("\n| bar | measured | |\n|---|---|---|");
        for case in cases {
            for bar in case.bars() {
                let ours = self.of(*case, Peer::Tidegate);
                let values = match bar.peer {
                    Some(peer) => ratios(ours, self.of(*case, peer)),
                    None => ours.to_vec(),
                };
                let verdict = verdict(bar, &values);
                println!(
                    "| {}: {} {} {} | {} | {verdict} |",
                    case.name(),
                    if bar.strictly { "<" } else { "<=" },
                    bar.most,
                    bar.peer
                        .map_or(case.unit().to_owned(), |peer| format!("x {}", peer.name())),
                    summary(&values)
                );
            }
        }
    }
}

fn verdict(bar: &Bar, values: &[f64]) -> &'static str {
    let Some(median) = median(values) else {
        return "not measured";
    };
    if median < bar.most || (!bar.strictly && median == bar.most) {
        "meets"
    } else {
        "misses"
    }
}

/// Round by round, as far as both have them.
pub(super) fn ratios(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a / b).collect()
}

/// The upper one of the two in the middle, where there are two.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// `median (least..most)`.
pub(super) fn summary(values: &[f64]) -> String {
    let Some(median) = median(values) else {
        return "-".into();
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Three digits that count: a ratio and a figure of hundreds are read alike.
    let digits = if most < 10.0 {
        2
    } else if most < 100.0 {
        1
    } else {
        0
    };
    format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_and_its_range_are_told() {
        assert_eq!(summary(&[3.0, 1.0, 2.0]), "2.00 (1.00..3.00)");
        assert_eq!(summary(&[12.34]), "12.3 (12.3..12.3)");
        assert_eq!(summary(&[]), "-");
    }

    #[test]
    fn ratios_are_of_the_same_rounds() {
        assert_eq!(ratios(&[2.0, 3.0], &[1.0, 6.0, 9.0]), [2.0, 0.5]);
    }

    #[test]
    fn a_bar_is_met_at_its_edge_unless_it_is_strict() {
        let mut bar = Bar {
            peer: None,
            most: 6.0,
            strictly: false,
        };
        assert_eq!(verdict(&bar, &[6.0]), "meets");
        assert_eq!(verdict(&bar, &[6.1]), "misses");
        assert_eq!(verdict(&bar, &[]), "not measured");
        bar.strictly = true;
        assert_eq!(verdict(&bar, &[6.0]), "misses");
    }
}
