//! The kernels: the newest that Debian has of each series, downloaded once into the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::Arch;
use crate::run::{self, Clock};
use crate::{place, setup};

/// The long-term series that Debian packages for clouds: small, and with everything a virtual machine needs. On arm64
/// 6.1 has no trampolines yet.
const SERIES: [&str; 2] = ["6.1", "6.12"];
const SERIES_ARM64: [&str; 1] = ["6.12"];

pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
}

pub fn newest(clock: Clock, arch: Arch) -> Result<Vec<Kernel>> {
    let series = match arch {
        Arch::Amd64 => &SERIES[..],
        Arch::Arm64 => &SERIES_ARM64[..],
    };
    series.iter().map(|series| one(series, arch, clock)).collect()
}

fn one(series: &str, arch: Arch, clock: Clock) -> Result<Kernel> {
    let cache = place::cache()?.join("kernels");
    let suffix = format!("-cloud-{}", arch.name());
    let release =
        offered(series, arch, &suffix)?.or_else(|| cached(&cache, series, &suffix)).with_context(|| {
            format!("no Linux {series}: apt offers no linux-image-{series}*{suffix} (run: apt-get update)")
        })?;
    let image = cache.join(&release).join("vmlinuz");
    if !image.exists() {
        let directory = cache.join(&release);
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // The image appears under its name when it is whole.
        let download =
            with_apt(arch, &format!("cd {}; apt-get download linux-image-{release}", directory.display()))?;
        let shell = format!(
            "{download} && dpkg-deb --fsys-tarfile linux-image-*.deb | \
             tar -x --strip-components=2 ./boot/vmlinuz-{release} && rm linux-image-*.deb && \
             mv vmlinuz-{release} vmlinuz"
        );
        let mut command = Command::new("sh");
        command.current_dir(&directory).args(["-ec", &shell]);
        clock.run_logged("install", &format!("Linux {release} (Debian package)"), &mut command)?;
    }
    Ok(Kernel { release, image })
}

fn offered(series: &str, arch: Arch, suffix: &str) -> Result<Option<String>> {
    let pattern = format!("^linux-image-{}\\.[0-9].*{suffix}$", series.replace('.', "\\."));
    let shell = with_apt(arch, &format!("apt-cache search --names-only \"{pattern}\""))?;
    let found = run::output("sh", &["-ec", &shell]).unwrap_or_default();
    let names = found.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("linux-image-"));
    Ok(names.max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// The command, with the apt of that processor.
fn with_apt(arch: Arch, command: &str) -> Result<String> {
    match arch {
        Arch::Amd64 => Ok(command.to_owned()),
        Arch::Arm64 => setup::with_arm64_apt(command),
    }
}

fn cached(cache: &Path, series: &str, suffix: &str) -> Option<String> {
    let entries = fs::read_dir(cache).ok()?.flatten().filter(|entry| entry.path().join("vmlinuz").exists());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with(&format!("{series}.")) && name.ends_with(suffix))
        .max_by_key(|name| numbers(name))
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
