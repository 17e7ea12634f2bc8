//! Makes text from a target harmless: no control sequences, no reordering, no endless lines.

use std::borrow::Cow;

/// Characters of one name that are shown.
const SHOWN: usize = 300;

/// Controls (which begin terminal sequences), line separators, and characters that reorder or hide others.
pub(crate) fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Harmful characters as `\u{1b}`; the middle of a very long name left out.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN && !text.chars().any(harmful) {
        return Cow::Borrowed(text);
    }
    let length = text.chars().count();
    let mut shown = String::with_capacity(SHOWN + 16);
    for (place, c) in text.chars().enumerate() {
        if length > SHOWN && place == SHOWN / 2 {
            shown.push('…');
        }
        if length > SHOWN && (SHOWN / 2..length - SHOWN / 2).contains(&place) {
            continue;
        }
        if harmful(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_for_the_terminal_are_shown_not_obeyed() {
        assert_eq!(escape("main.f"), "main.f");
        assert_eq!(escape("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("a\nb\r\u{9b}31m"), "a\\u{a}b\\u{d}\\u{9b}31m");
        assert_eq!(escape("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(escape("größe.λ"), "größe.λ");
    }

    #[test]
    fn endless_names_are_cut_in_the_middle() {
        let name = format!("first{}last", "é".repeat(10_000));
        let shown = escape(&name);
        assert!(shown.chars().count() <= SHOWN + 1);
        assert!(shown.starts_with("first") && shown.ends_with("last") && shown.contains('…'));
    }
}
