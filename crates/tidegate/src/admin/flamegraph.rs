//! Stacks that were sampled, as people read them: lines of text that tools know, or one picture.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Width of the picture and height of a row, in pixels.
const WIDTH: f64 = 1200.0;
const ROW: usize = 16;
/// Narrower than this nothing can be seen or pointed at.
const NARROWEST: f64 = 0.3;
/// About as wide as a letter is.
const LETTER: f64 = 6.6;

/// Stacks, outermost frame first, with how often each was met.
pub(crate) type Stacks = BTreeMap<Vec<String>, u64>;

/// One line for each stack: its frames with `;` between them, a space, how often. What flamegraph.pl, inferno and speedscope read.
pub(crate) fn folded(stacks: &Stacks) -> String {
    let mut out = String::new();
    for (stack, count) in stacks {
        for (depth, frame) in stack.iter().enumerate() {
            if depth > 0 {
                out.push(';');
            }
            out.extend(frame.chars().map(|letter| match letter {
                ';' => ':',
                letter if letter.is_control() => ' ',
                letter => letter,
            }));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, " {count}");
    }
    out
}

/// A picture: the wider a box, the more time was spent in it and what it called; callers are above what they call.
pub(crate) fn svg(stacks: &Stacks, title: &str) -> String {
    let mut root = Node::default();
    for (stack, count) in stacks {
        root.add(stack, *count);
    }
    let height = (root.depth() + 2) * ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"4\" y=\"12\">{}</text>\n",
        escaped(title)
    );
    let all = root.count.max(1);
    root.draw(&mut out, "all", all, 0.0, 1);
    out.push_str("</svg>\n");
    out
}

/// A function as it was called from those above it.
#[derive(Default)]
struct Node {
    count: u64,
    calls: BTreeMap<String, Node>,
}

impl Node {
    fn add(&mut self, stack: &[String], count: u64) {
        self.count += count;
        if let Some((frame, rest)) = stack.split_first() {
            let callee = self.calls.entry(frame.clone()).or_default();
            callee.add(rest, count);
        }
    }

    fn depth(&self) -> usize {
        1 + self.calls.values().map(Self::depth).max().unwrap_or(0)
    }

    fn draw(&self, out: &mut String, name: &str, all: u64, left: f64, row: usize) {
        let share = self.count as f64 / all as f64;
        let width = share * WIDTH;
        if width < NARROWEST {
            return;
        }
        let (count, percent, top) = (self.count, 100.0 * share, row * ROW);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<g><title>{}: {count} samples, {percent:.1} %</title>\
             <rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{}\" fill=\"hsl({},70%,72%)\"/>",
            escaped(name),
            ROW - 1,
            hue(name)
        );
        let letters = (width / LETTER) as usize;
        if letters >= 3 {
            let (x, y) = (left + 2.0, top + 12);
            let shown: String = name.chars().take(letters).collect();
            let _ = write!(
                out,
                "<text x=\"{x:.1}\" y=\"{y}\">{}</text>",
                escaped(&shown)
            );
        }
        out.push_str("</g>\n");
        let mut left = left;
        for (name, callee) in &self.calls {
            callee.draw(out, name, all, left, row + 1);
            left += callee.count as f64 / all as f64 * WIDTH;
        }
    }
}

/// What is of one crate has one colour.
fn hue(name: &str) -> u32 {
    let of = name.trim_start_matches(['<', '&', ' ']);
    let of = of.split("::").next().unwrap_or(of);
    let sum = of.bytes().fold(7u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    sum % 360
}

/// Text between tags.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks() -> Stacks {
        let stack = |frames: &[&str]| frames.iter().map(|frame| (*frame).to_owned()).collect();
        Stacks::from([
            (stack(&["worker-0", "main", "<a::B as C>::d"]), 3),
            (stack(&["worker-0", "main", "e;f\n"]), 1),
            (stack(&["worker-0"]), 4),
        ])
    }

    #[test]
    fn lines_have_one_stack_each() {
        assert_eq!(
            folded(&stacks()),
            "worker-0 4\nworker-0;main;<a::B as C>::d 3\nworker-0;main;e:f  1\n"
        );
    }

    #[test]
    fn boxes_are_as_wide_as_their_share() {
        let picture = svg(&stacks(), "8 samples & more");
        assert!(picture.contains("8 samples &amp; more"), "{picture}");
        for (name, says, width) in [
            ("all", "8 samples, 100.0 %", "1200.0"),
            ("main", "4 samples, 50.0 %", "600.0"),
            ("&lt;a::B as C&gt;::d", "3 samples, 37.5 %", "450.0"),
        ] {
            let line = picture
                .lines()
                .find(|line| line.contains(&format!("<title>{name}: {says}</title>")));
            let line = line.unwrap_or_else(|| panic!("{name} is not in {picture}"));
            assert!(line.contains(&format!("width=\"{width}\"")), "{line}");
        }
        // What is drawn below `main` begins where it does.
        assert_eq!(picture.matches("x=\"0.0\"").count(), 4);
        assert!(picture.ends_with("</svg>\n"));
        assert!(!svg(&Stacks::new(), "nothing").contains("<title>"));
    }
}
