//! Label values: what came from a target is shown harmless and within a bound.

use crate::escape::escape;
use crate::sample::{Group, GroupId};

/// Characters of a value. Prometheus servers are often set up to refuse longer ones.
const MOST: usize = 160;

/// What is summed up because it found no place.
pub(super) const OTHER: &str = "~other";

/// Without control characters, and with its middle left out when it is too long: the line at its end matters.
pub(super) fn value(text: &str) -> String {
    if text.len() > 8 * MOST {
        // However long it is, only what may be shown is looked at.
        let end: Vec<char> = text.chars().rev().take(MOST).collect();
        let both: String = text.chars().take(MOST).chain(end.into_iter().rev()).collect();
        return cut(&escape(&both));
    }
    cut(&escape(text))
}

fn cut(shown: &str) -> String {
    let length = shown.chars().count();
    if length <= MOST {
        return shown.to_owned();
    }
    let end = MOST / 2 - 1;
    shown.chars().take(MOST / 2).chain(['…']).chain(shown.chars().skip(length - end)).collect()
}

/// `checkout.(*Quoter).fetch quote.go:41`; `unknown` for a group without a stack.
pub(super) fn site(group: &Group) -> String {
    crate::diagnose::site::place(group)
        .map_or_else(|| "unknown".to_owned(), |place| value(&crate::diagnose::site::words(&place)))
}

pub(super) fn stack_id(id: GroupId) -> String {
    format!("{:016x}", id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_keep_their_end() {
        assert_eq!(value("main.f a.go:1"), "main.f a.go:1");
        let long = value(&format!("main.{} quote.go:41", "x".repeat(10_000)));
        assert_eq!(long.chars().count(), MOST);
        assert!(long.starts_with("main.") && long.ends_with(" quote.go:41"), "{long}");
        assert_eq!(value("a\r\n\u{202e}b"), "a\\u{d}\\u{a}\\u{202e}b");
    }
}
