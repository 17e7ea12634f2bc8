//! Debian packages: what there is, and installing it. Reads os-release and apt's lists.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::run::{self, Clock};

/// Why nothing may be installed here, if so.
pub fn forbidden() -> Option<&'static str> {
    if !is_debian() {
        Some("this is neither Debian nor a distribution made from it")
    } else if !is_root() {
        Some("only root may install packages")
    } else {
        None
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let like = release.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
        matches!(key, "ID" | "ID_LIKE")
            && value.trim_matches('"').split_whitespace().any(|id| matches!(id, "debian" | "ubuntu"))
    });
    like && run::output("apt-get", &["--version"]).is_some()
}

/// Whether apt offers the package in at least this version (compared number by number).
pub fn offers(package: &str, least: &[u32]) -> bool {
    let policy = run::output("apt-cache", &["policy", package]).unwrap_or_default();
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .is_some_and(|version| version != "(none)" && numbers(version).as_slice() >= least)
}

/// The leading numbers of a version: `2:1.19~1` is 1, 19.
fn numbers(version: &str) -> Vec<u32> {
    let upstream = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    upstream.split('.').map_while(leading_number).collect()
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Fetches the package lists. A list that cannot be fetched is said and no reason to stop: others may do.
pub fn refresh(clock: Clock) {
    let mut command = Command::new("apt-get");
    command.args(["update", "-o", "APT::Update::Error-Mode=any"]);
    if clock.run_logged("install", "package lists (apt-get update)", &mut command).is_err() {
        clock.say("install", "some package lists cannot be fetched; going on with those there are");
    }
}

pub fn install(packages: &[&str], clock: Clock) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("sh");
    command.args(["-c", &install_command(packages)]).env("DEBIAN_FRONTEND", "noninteractive");
    clock.run_logged("install", &format!("Debian packages {}", packages.join(" ")), &mut command)
}

pub fn install_command(packages: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(numbers("2:1.19~1"), [1, 19]);
        assert_eq!(numbers("1.96.0+dfsg1-1~deb12u2"), [1, 96, 0]);
        assert!(numbers("1.9") < numbers("1:1.21.3-2"));
    }
}
