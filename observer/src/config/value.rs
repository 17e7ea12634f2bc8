//! What can be wrong with a configuration, in one line, and the checks that keys share.

use std::time::Duration;

use thiserror::Error;

use super::units;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("configuration {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("configuration {path}: longer than 1 MiB: is it the right file?")]
    Long { path: String },
    #[error("configuration {path}:{line}: {message}")]
    Syntax { path: String, line: usize, message: String },
    #[error("{key}: {message}")]
    Value { key: String, message: String },
    #[error(
        "nothing to observe: name targets by --exe, --comm, --cmdline, --cgroup or --pid, or in a file with --config (deploy/observer.toml shows how)"
    )]
    NoTarget,
}

pub(super) fn wrong(key: &str, message: String) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), message }
}

pub(super) fn duration(
    key: &str,
    given: Option<&String>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    given.map_or(Ok(default), |text| {
        units::duration(text).map_err(|message| wrong(key, format!("`{text}`: {message}")))
    })
}

pub(super) fn within(key: &str, value: Duration, least: Duration, most: Duration) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, format!("{value:?} is not between {least:?} and {most:?}")))
}

pub(super) fn number(
    key: &str,
    given: Option<usize>,
    default: usize,
    least: usize,
    most: usize,
) -> Result<usize, ConfigError> {
    match given {
        None => Ok(default),
        Some(number) if (least..=most).contains(&number) => Ok(number),
        Some(number) => Err(wrong(key, format!("{number} is not between {least} and {most}"))),
    }
}
