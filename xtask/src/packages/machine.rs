//! A small Debian in a directory, with a systemd of its own that runs in namespaces: as much of a server as a package
//! can tell. Costs the download of 60 MB once, two seconds to unpack and one to boot; leaves nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::place;
use crate::run::{self, Background, Clock};

const BOOT: &str = include_str!("boot.sh");
/// That of the machine that tests: the program is linked against its libc.
const RELEASE: &str = ". /etc/os-release; echo \"$VERSION_CODENAME\"";
const PACKAGES: &str = "systemd,systemd-sysv";
/// A systemd without services is up in a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fetched once, kept in the cache. Packages come from where this machine has its own.
pub fn debian(clock: Clock) -> Result<PathBuf> {
    let release = run::output("sh", &["-c", RELEASE]).filter(|name| !name.is_empty());
    let release = release.context("this Debian has no name: /etc/os-release lacks VERSION_CODENAME")?;
    let directory = place::cache()?.join("debian");
    let archive = directory.join(format!("{release}-systemd.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let part = archive.with_extension("part");
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .arg(&release)
        .arg(&part)
        .args(sources());
    clock.run_logged("machine", &format!("Debian {release} (mmdebstrap)"), &mut command)?;
    fs::rename(&part, &archive)?;
    Ok(archive)
}

/// apt's own lists; without any, mmdebstrap knows a default.
fn sources() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.push(PathBuf::from("/etc/apt/sources.list.d/debian.sources"));
    files.retain(|file| fs::metadata(file).is_ok_and(|file| file.len() > 0));
    files
}

pub struct Machine {
    root: PathBuf,
    group: String,
    // An option so that it ends before the directory goes.
    systemd: Option<Background>,
    init: u32,
}

impl Machine {
    pub fn boot(clock: Clock, archive: &Path) -> Result<Self> {
        let name = format!("observer-test-{}", std::process::id());
        let root = place::work().join(&name);
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        let mut machine = Self { root, group: name, systemd: None, init: 0 };
        let mut unpack = Command::new("tar");
        run::check(unpack.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&machine.root))?;

        let console = File::create(machine.console())?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-ec", BOOT, "boot.sh"])
            .args([&machine.root, Path::new(&machine.group)])
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        let mut systemd = Background::start("systemd", &mut command)?;
        let began = Instant::now();
        let parent = systemd.child().id();
        loop {
            systemd
                .still_runs()
                .map_err(|error| anyhow!("{error:#}; see {}", machine.console().display()))?;
            if let Some(init) = systemd_below(parent) {
                machine.init = init;
                break;
            }
            if began.elapsed() > PATIENCE {
                bail!("systemd does not start; see {}", machine.console().display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        machine.systemd = Some(systemd);
        machine.until("it is up", "systemctl is-system-running | grep -qE 'running|degraded'")?;
        clock.say("machine", "a systemd of its own is up");
        Ok(machine)
    }

    fn console(&self) -> PathBuf {
        self.root.with_extension("console")
    }

    /// What is known when something failed: the service's log, and where systemd's own is.
    pub fn last_words(&self) -> String {
        let log = self.run("journalctl --no-pager --lines=30 --output=cat --unit=observer.service");
        let console = place::shown(&self.console());
        format!("{}(systemd's own log: {console})", log.unwrap_or_else(|error| format!("{error:#}\n")))
    }

    /// Nothing failed: nobody will read what systemd said.
    pub fn forget(self) {
        // One that stays is in nobody's way.
        let _ = fs::remove_file(self.console());
    }

    /// Runs a script in it, as root. What it prints; an error when it fails.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.enter(script).stdin(Stdio::null()).output().context("cannot start nsenter")?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr);
            bail!("`{script}` failed in the machine ({})\n{out}{err}", output.status);
        }
        Ok(out)
    }

    /// Until the script succeeds.
    pub fn until(&self, what: &str, script: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            match self.run(script) {
                Ok(out) => return Ok(out),
                Err(error) if began.elapsed() > PATIENCE => {
                    return Err(error.context(format!("not within {} s: {what}", PATIENCE.as_secs())));
                }
                Err(_) if crate::interrupt::interrupted() => bail!("interrupted"),
                Err(_) => thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Into its `/opt`.
    pub fn put(&self, file: &Path, name: &str) -> Result<()> {
        fs::copy(file, self.root.join("opt").join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    fn enter(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.init.to_string(),
                "--mount",
                "--pid",
                "--net",
                "--uts",
                "--ipc",
                "--cgroup",
            ])
            .args(["--root", "--wd", "--", "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["DEBIAN_FRONTEND=noninteractive", "/bin/bash", "-ec", script]);
        command
    }
}

/// The child that has become systemd.
fn systemd_below(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (name.trim() == "systemd").then_some(child)
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process the whole PID namespace ends, and with that the mounts.
        drop(self.systemd.take());
        let sweep = "mount -t cgroup2 cgroup2 \"$1\"; cd \"$1\"; \
            for i in 1 2 3 4 5 6 7 8 9 10; do find \"$2\" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.2; done";
        let groups = self.root.join("mnt");
        let swept = Command::new("unshare")
            .args(["--mount", "sh", "-ec", sweep, "sh"])
            .arg(&groups)
            .arg(&self.group)
            .status();
        if !swept.is_ok_and(|status| status.success()) {
            eprintln!("xtask: control groups below {} could not be removed", self.group);
        }
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("xtask: {} could not be removed: {error}", self.root.display());
        }
    }
}
