//! What every page has around it: head, header, footer, and how names and addresses are written.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::assets;
use crate::diagnose::Verdict;
use crate::escape::escape;
use crate::format;
use crate::tell::web::chart::clock;

/// A name or sentence from outside: harmless characters only, never endless. The markup's own escaping comes on top.
pub(super) fn safe(text: &str) -> String {
    text.split(' ').map(escape).collect::<Vec<_>>().join(" ")
}

/// One part of a path.
pub(super) fn path_part(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut part, byte| {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && name != "." && name != "..")
        {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
        part
    })
}

/// A moment, in UTC until the script shows it in the reader's own time zone.
pub fn moment(at: f64) -> Markup {
    html! { time data-at=(format!("{at:.0}")) data-step="1" { (clock(at, 1.0)) " UTC" } }
}

/// A verdict's word with its sign.
pub(super) fn badge(verdict: Verdict) -> Markup {
    let (class, sign, word) = match verdict {
        Verdict::Leak => ("leak", "▲", "LEAK"),
        Verdict::Growing => ("growing", "↗", "GROWING"),
        Verdict::Stable => ("stable", "✓", "STABLE"),
        Verdict::InsufficientData => ("unknown", "…", "NOT ENOUGH DATA"),
    };
    html! { span class={ "badge " (class) } { span aria-hidden="true" { (sign) } " " (word) } }
}

pub(super) fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "leak",
        Verdict::Growing => "growing",
        Verdict::Stable => "stable",
        Verdict::InsufficientData => "unknown",
    }
}

/// A page that the server sends. `version` tells the script what it shows already.
pub(super) struct Page<'a> {
    pub title: String,
    /// The path to the root of the server.
    pub root: &'static str,
    pub version: String,
    /// Of the target, on its page.
    pub crumb: Option<&'a str>,
    pub main: Markup,
}

impl Page<'_> {
    pub(super) fn write(&self) -> String {
        let root = self.root;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    title { (safe(&self.title)) }
                    link rel="icon" type="image/svg+xml" href={ (root) "/assets/icon.svg?v=" (assets::version()) };
                    link rel="stylesheet" href={ (root) "/assets/page.css?v=" (assets::version()) };
                    script src={ (root) "/assets/page.js?v=" (assets::version()) } defer {}
                }
                body {
                    a class="skip" href="#main" { "Skip to the verdict" }
                    header class="top" {
                        a class="brand" href={ (root) "/" } { (PreEscaped(assets::MARK)) "observer" }
                        @if let Some(name) = self.crumb {
                            span class="crumb" aria-hidden="true" { "/" }
                            span class="crumb name" { (safe(name)) }
                        }
                        span class="live" id="live" role="status" hidden {}
                    }
                    main id="main" tabindex="-1" data-version=(self.version) { (self.main) }
                    footer {
                        "observer " (env!("CARGO_PKG_VERSION"))
                        " · " a href={ (root) "/api/v1/targets" } { "JSON" }
                    }
                }
            }
        };
        page.into_string()
    }
}

/// `412 MiB`.
pub(super) fn bytes(value: u64) -> String {
    format::bytes(value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        assert_eq!(path_part("checkout-7.2"), "checkout-7.2");
        assert_eq!(path_part("a/b?c#d%"), "a%2Fb%3Fc%23d%25");
        assert_eq!(path_part(".."), "%2E%2E");
        assert_eq!(path_part("\"<é"), "%22%3C%C3%A9");
    }

    #[test]
    fn a_sentence_keeps_its_spaces_and_loses_its_controls() {
        assert_eq!(safe("a  b\u{202e}c"), "a  b\\u{202e}c");
    }
}
