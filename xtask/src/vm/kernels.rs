//! The kernels: the newest that Debian has of each series, downloaded once into the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::place;
use crate::run::{self, Clock};

/// The long-term series that Debian packages for clouds: small, and with everything a virtual machine needs.
const SERIES: [&str; 2] = ["6.1", "6.12"];
const SUFFIX: &str = "-cloud-amd64";

pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
}

pub fn newest(clock: Clock) -> Result<Vec<Kernel>> {
    SERIES.into_iter().map(|series| one(series, clock)).collect()
}

fn one(series: &str, clock: Clock) -> Result<Kernel> {
    let cache = place::cache()?.join("kernels");
    let release = offered(series).or_else(|| cached(&cache, series)).with_context(|| {
        format!("no Linux {series}: apt offers no linux-image-{series}*{SUFFIX} (run: apt-get update)")
    })?;
    let image = cache.join(&release).join("vmlinuz");
    if !image.exists() {
        let directory = cache.join(&release);
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // The image appears under its name when it is whole.
        let shell = format!(
            "apt-get download linux-image-{release} && dpkg-deb --fsys-tarfile linux-image-*.deb | \
             tar -x --strip-components=2 ./boot/vmlinuz-{release} && rm linux-image-*.deb && \
             mv vmlinuz-{release} vmlinuz"
        );
        let mut command = Command::new("sh");
        command.current_dir(&directory).args(["-ec", &shell]);
        clock.run_logged("install", &format!("Linux {release} (Debian package)"), &mut command)?;
    }
    Ok(Kernel { release, image })
}

fn offered(series: &str) -> Option<String> {
    let pattern = format!("^linux-image-{}\\.[0-9].*{SUFFIX}$", series.replace('.', "\\."));
    let found = run::output("apt-cache", &["search", "--names-only", &pattern])?;
    let names = found.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("linux-image-"));
    names.max_by_key(|name| numbers(name)).map(str::to_owned)
}

fn cached(cache: &Path, series: &str) -> Option<String> {
    let entries = fs::read_dir(cache).ok()?.flatten().filter(|entry| entry.path().join("vmlinuz").exists());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("{series}."))).max_by_key(|name| numbers(name))
}

/// All numbers of a release, to compare by.
fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn newer_is_greater() {
        assert!(numbers("6.1.0-56-cloud-amd64") > numbers("6.1.0-9-cloud-amd64"));
        assert!(numbers("6.12.117+deb12-cloud-amd64") > numbers("6.12.99+deb12-cloud-amd64"));
    }
}
