//! What an endpoint's agent says: HAProxy's agent-check protocol, one line of words.
//!
//! Reads the line only; who asks and what comes of it is elsewhere. As in HAProxy, what is not said stays as it is, so whoever
//! says `down` has to say `up` later, and whoever says `drain` or `maint` has to say `ready`.

/// The largest share an agent can ask for, in percent of the declared weight.
pub const MOST_PERCENT: u32 = 256;
/// Longest reason that is kept, in characters.
const MOST_REASON: usize = 100;

/// What was said; `None` where nothing was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentWord {
    /// Its share of its declared weight, in percent; at most [`MOST_PERCENT`].
    pub weight_percent: Option<u32>,
    /// Whether it works (`up`, `down`, `failed`, `stopped`).
    pub works: Option<bool>,
    /// Whether it wants to be left alone (`drain`, `maint`, `ready`).
    pub drains: Option<bool>,
    /// Most requests in progress; `Some(None)`: no limit of the agent.
    pub most: Option<Option<u32>>,
    /// Its own words for being down: what follows `#`, without anything that is not to be printed.
    pub reason: Option<String>,
    /// Words that say nothing we know.
    pub unknown: usize,
}

impl AgentWord {
    /// Reads a line. Never fails: what is not understood is counted. Of two words about one thing the last one counts.
    pub fn parse(line: &[u8]) -> Self {
        let mut said = Self::default();
        let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line = &line[..end.unwrap_or(line.len())];
        let mut parts = line.splitn(2, |byte| *byte == b'#');
        let words = parts.next().unwrap_or_default();
        said.reason = parts.next().and_then(reason);
        for word in words.split(|byte| matches!(byte, b' ' | b',' | b'\t')) {
            if !word.is_empty() && said.take(word).is_none() {
                said.unknown += 1;
            }
        }
        said
    }

    fn take(&mut self, word: &[u8]) -> Option<()> {
        let word = std::str::from_utf8(word).ok()?.to_ascii_lowercase();
        match word.as_str() {
            "up" => self.works = Some(true),
            "down" | "failed" | "stopped" => self.works = Some(false),
            "ready" => self.drains = Some(false),
            "drain" | "maint" => self.drains = Some(true),
            other => {
                if let Some(percent) = other.strip_suffix('%') {
                    self.weight_percent = Some(whole(percent)?.min(MOST_PERCENT));
                } else {
                    let most = whole(other.strip_prefix("maxconn:")?)?;
                    // As in HAProxy, 0 is no limit.
                    self.most = Some(Some(most).filter(|most| *most > 0));
                }
            }
        }
        Some(())
    }

    /// Whether nothing at all was said that we know.
    pub fn is_empty(&self) -> bool {
        let Self {
            weight_percent,
            works,
            drains,
            most,
            ..
        } = self;
        weight_percent.is_none() && works.is_none() && drains.is_none() && most.is_none()
    }
}

/// A whole number; one that is too large is as large as can be.
fn whole(text: &str) -> Option<u32> {
    let is_whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| text.parse().unwrap_or(u32::MAX))
}

fn reason(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let is_plain = |c: &char| !c.is_control() && *c != char::REPLACEMENT_CHARACTER;
    let kept: String = text.trim().chars().filter(is_plain).collect();
    let kept: String = kept.chars().take(MOST_REASON).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &AgentWord) {
        assert_eq!(AgentWord::parse(line.as_bytes()), *expected, "{line:?}");
    }

    fn word() -> AgentWord {
        AgentWord::default()
    }

    #[test]
    fn words_and_their_combinations() {
        let percent = |n| AgentWord {
            weight_percent: Some(n),
            ..word()
        };
        let works = |yes| AgentWord {
            works: Some(yes),
            ..word()
        };
        let drains = |yes| AgentWord {
            drains: Some(yes),
            ..word()
        };
        for (line, expected) in [
            ("", word()),
            ("75%\n", percent(75)),
            ("0%", percent(0)),
            ("256%", percent(256)),
            ("300%", percent(256)),
            ("99999999999999999999%", percent(256)),
            ("10% 20%", percent(20)),
            ("up\r\n", works(true)),
            ("UP", works(true)),
            ("down", works(false)),
            ("failed", works(false)),
            ("stopped", works(false)),
            ("ready", drains(false)),
            ("drain", drains(true)),
            ("maint\n", drains(true)),
            ("up\ndown\n", works(true)),
        ] {
            check(line, &expected);
        }
        check(
            "down #disk is full, 100% # really",
            &AgentWord {
                reason: Some("disk is full, 100% # really".into()),
                ..works(false)
            },
        );
        check(
            " ,up,ready\t50%, maxconn:30 ",
            &AgentWord {
                weight_percent: Some(50),
                works: Some(true),
                drains: Some(false),
                most: Some(Some(30)),
                ..word()
            },
        );
        check(
            "maxconn:0",
            &AgentWord {
                most: Some(None),
                ..word()
            },
        );
    }

    #[test]
    fn garbage_says_nothing() {
        for line in [
            "%",
            "-5%",
            "5.5%",
            "+5%",
            "5 %x",
            "maxconn:",
            "maxconn:-1",
            "maxconn",
            "upp",
            "\u{0}",
            "GET / HTTP/1.1",
        ] {
            let said = AgentWord::parse(line.as_bytes());
            assert!(said.is_empty() && said.unknown > 0, "{line:?}: {said:?}");
        }
        assert!(AgentWord::parse(&[0xff; 1024]).is_empty());
        let said = AgentWord::parse(b"nonsense up");
        assert_eq!((said.works, said.unknown), (Some(true), 1));
    }

    #[test]
    fn a_reason_is_short_and_can_be_printed() {
        let long = [b"down #\x1b[31m\xff".to_vec(), vec![b'x'; 5000]].concat();
        let reason = AgentWord::parse(&long).reason.unwrap_or_default();
        assert!(reason.starts_with("[31mxx"), "{reason}");
        assert_eq!(reason.chars().count(), MOST_REASON);
        assert_eq!(AgentWord::parse(b"down #  ").reason, None);
    }

    #[test]
    fn nothing_makes_it_panic() {
        // Every row of three bytes of those that mean something, and some that do not.
        let bytes = b"1%#,: \n\r\x00\xffumd";
        for a in bytes {
            for b in bytes {
                for c in bytes {
                    AgentWord::parse(&[*a, *b, *c]);
                }
            }
        }
    }
}
