//! The third ring: observer on other kernels, in QEMU, without KVM.
//!
//! Boots each kernel with an initramfs of busybox, observer and a few targets; init.sh runs observer and writes
//! to the serial console, which is then checked. A minute in all, after the first download of 60 MB.

mod check;
mod guest;
mod kernels;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::image::Arch;
use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{build, place};
use kernels::Kernel;

/// What a machine may take; it needs 30 to 60 s, for arm64 150.
const SECONDS: &str = "420";
/// How much of the console is shown when something failed.
const TAIL_LINES: usize = 60;

pub fn test(clock: Clock, arch: Arch) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the tests on other kernels run on x86-64 only");
    }
    let observer = match arch {
        Arch::Amd64 => {
            setup::ensure(Purpose::Vm, clock)?;
            build::unoptimized(clock)?
        }
        // There are no tests that have built it already: as it is shipped.
        Arch::Arm64 => {
            setup::ensure(Purpose::VmArm64, clock)?;
            build::dist_arm64(clock)?
        }
    };
    let kernels = kernels::newest(clock, arch)?;
    let initramfs = guest::initramfs(clock, &observer, arch)?;

    clock.say("vm", "booting, at most 7 minutes each");
    let results: Vec<_> = thread::scope(|scope| {
        let machines: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                (kernel, scope.spawn(|| boot(kernel, &initramfs, arch).and_then(|text| judge(kernel, &text))))
            })
            .collect();
        let join = |(kernel, machine): (_, thread::ScopedJoinHandle<'_, Result<String>>)| {
            (kernel, machine.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked"))))
        };
        machines.into_iter().map(join).collect()
    });
    let mut failed = Vec::new();
    for (kernel, result) in results {
        match result {
            Ok(seen) => clock.say("vm", &format!("Linux {}: passed; {seen}", kernel.release)),
            Err(error) => {
                println!("\nLinux {}: {error:#}\n", kernel.release);
                failed.push(kernel.release.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on Linux {}", failed.join(" and "));
    }
    Ok(())
}

/// Runs the machine until it powers itself off; what its console said.
fn boot(kernel: &Kernel, initramfs: &Path, arch: Arch) -> Result<String> {
    let path = place::work().join(format!("vm-{}.console", kernel.release));
    let console = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let (machine, serial) = match arch {
        Arch::Amd64 => (&["qemu-system-x86_64"][..], "ttyS0"),
        Arch::Arm64 => (&["qemu-system-aarch64", "-M", "virt"][..], "ttyAMA0"),
    };
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", SECONDS])
        .args(machine)
        // Threads of their own for each CPU crash newer kernels in QEMU 7.2.
        .args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .args(["-append", &format!("console={serial} quiet panic=-1")])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    let status = run::wait(&mut command, |_| ())?;
    let text = String::from_utf8_lossy(&fs::read(&path)?).replace('\r', "");
    if !status.success() {
        bail!(
            "the machine did not end within {SECONDS} s ({status}); its console ends with:\n{}",
            tail(&text)
        );
    }
    Ok(text)
}

fn judge(kernel: &Kernel, console: &str) -> Result<String> {
    check::check(kernel, console)
        .map_err(|error| anyhow!("{error:#}; its console ends with:\n{}", tail(console)))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
