//! Errors as one line, which is what a person gets to read of them.
//!
//! Pure text: causes are said once, and nothing of it steers a terminal.

use crate::escape::harmful;

/// What went wrong with its causes, each said once though many errors quote their cause. Lists keep their lines.
pub fn error_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    harmless(&text)
}

/// It may hold what a process or a user named something: nothing of that is to steer a terminal.
fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c != '\n' && harmful(c) { c.escape_unicode().collect() } else { vec![c] })
        .collect()
}

/// The page that clap writes about wrong arguments as one line: what is wrong, what is possible, where help is.
pub fn usage_line(page: &str) -> String {
    let mut line = String::new();
    for part in page.lines().map(str::trim).filter(|part| !part.is_empty()) {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        if part.starts_with("For more information") {
            continue;
        }
        let separator = match part {
            _ if line.is_empty() => "",
            _ if part.starts_with('[') || line.ends_with(':') => " ",
            _ => "; ",
        };
        line.push_str(separator);
        line.push_str(&harmless(part));
    }
    line + " (try --help)"
}

#[cfg(test)]
mod tests {
    use super::{error_line, usage_line};

    #[test]
    fn a_cause_is_said_once_and_harmless() {
        let cause = anyhow::anyhow!("EPERM");
        assert_eq!(
            error_line(&cause.context("a\x1b[2J: EPERM").context("pid 5")),
            "pid 5: a\\u{1b}[2J: EPERM"
        );
        let cause = anyhow::anyhow!("EPERM");
        assert_eq!(error_line(&cause.context("open")), "open: EPERM");
    }

    #[test]
    fn wrong_arguments_in_one_line() {
        let page = "error: invalid value 'xml' for '--format <FORMAT>'\n  [possible values: text, json]\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_line(page),
            "invalid value 'xml' for '--format <FORMAT>' [possible values: text, json] (try --help)"
        );
        let page = "error: the following required arguments were not provided:\n  <PID|NAME>\n\nUsage: observer attach <PID|NAME>\n";
        assert_eq!(
            usage_line(page),
            "the following required arguments were not provided: <PID|NAME>; Usage: observer attach <PID|NAME> (try --help)"
        );
        assert!(!usage_line("error: \x1b[31m").contains('\x1b'));
    }
}
