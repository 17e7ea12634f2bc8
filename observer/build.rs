//! Builds the eBPF object and embeds it, or, without the eBPF toolchain, embeds an empty one.
//!
//! `OBSERVER_EBPF=off` never builds it, `=require` fails without it; by default it is built when the
//! toolchain is there. `OBSERVER_EBPF_TOOLCHAIN` names the rustup toolchain to use.
//! A build that lacks its object tries again as soon as what it lacked may be there; one that has it does not.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The toolchain that `cargo xtask setup` links where rustup's nightly has no rust-src.
const LINKED_TOOLCHAIN: &str = "observer-ebpf";

fn main() -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(observer_ebpf)");
    for name in ["OBSERVER_EBPF", "OBSERVER_EBPF_TOOLCHAIN", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=../observer-ebpf");
    println!("cargo::rerun-if-changed=../observer-common");

    let mode = env::var("OBSERVER_EBPF").unwrap_or_default();
    let missing = match mode.as_str() {
        "off" => Some("OBSERVER_EBPF=off".to_owned()),
        "" | "auto" | "require" => match toolchain() {
            Ok(toolchain) => {
                build(&toolchain)?;
                println!("cargo::rustc-cfg=observer_ebpf");
                None
            }
            Err(missing) if mode == "require" => {
                bail!("OBSERVER_EBPF=require, but the eBPF toolchain is not complete: {missing}");
            }
            Err(missing) => {
                missing.watch()?;
                // Who installs it would else know only from `observer --version`.
                println!("cargo::warning=observer is built without eBPF, with less to see: {missing}");
                Some(missing.to_string())
            }
        },
        other => bail!("OBSERVER_EBPF is `{other}`; it may be auto, off or require"),
    };
    if let Some(reason) = missing {
        fs::write(out_dir()?.join("observer-ebpf"), [])?;
        println!("cargo::rustc-env=OBSERVER_EBPF_MISSING={reason}");
    }
    Ok(())
}

fn out_dir() -> Result<PathBuf> {
    env::var_os("OUT_DIR").map(PathBuf::from).context("cargo sets OUT_DIR")
}

/// What is not there to build the object with.
enum Missing {
    /// No folder in `PATH` has a bpf-linker.
    Linker,
    /// One has, and it does not run.
    LinkerRuns,
    /// A Rust toolchain with the sources of `core`.
    Sources,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linker => "no bpf-linker (install: cargo xtask setup)",
            Self::LinkerRuns => "bpf-linker does not run (see: bpf-linker --version)",
            Self::Sources => "no Rust toolchain with the sources of `core` (install: cargo xtask setup)",
        })
    }
}

impl Missing {
    /// Has cargo run this script again when that may have changed.
    ///
    /// A bpf-linker appears in a folder of `PATH`: cargo looks at the times in those, and a build in which nothing has
    /// changed stays quick. For the rest, and for a folder that is yet to be made, a file that never exists stands: cargo
    /// then runs this script, and compiles observer, with every build.
    fn watch(&self) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: BTreeSet<PathBuf> = match self {
            Self::Linker => env::split_paths(&path).collect(),
            Self::LinkerRuns | Self::Sources => BTreeSet::from([out_dir()?.join("never")]),
        };
        for folder in folders {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
        Ok(())
    }
}

/// A rustup toolchain with the sources of `core` that may build it, and bpf-linker beside it.
fn toolchain() -> Result<String, Missing> {
    if !runs("bpf-linker", &["--version"]) {
        let path = env::var_os("PATH").unwrap_or_default();
        let is_there = env::split_paths(&path).any(|folder| folder.join("bpf-linker").exists());
        return Err(if is_there { Missing::LinkerRuns } else { Missing::Linker });
    }
    if let Ok(name) = env::var("OBSERVER_EBPF_TOOLCHAIN") {
        return Ok(name);
    }
    let found = [LINKED_TOOLCHAIN, "nightly"].into_iter().find(|name| has_sources(name));
    found.map(str::to_owned).ok_or(Missing::Sources)
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn has_sources(toolchain: &str) -> bool {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output();
    output.is_ok_and(|output| {
        output.status.success()
            && Path::new(String::from_utf8_lossy(&output.stdout).trim())
                .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                .exists()
    })
}

/// Runs cargo once more, for the BPF target and in a target folder of its own (cargo locks the one it runs in).
/// Says nothing unless the compiler has something to say.
fn build(toolchain: &str) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../observer-ebpf");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").context("cargo sets CARGO_CFG_TARGET_ARCH")?;
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    // Beside the profiles' folders, so that `check`, `build` and `test` share one build of `core`.
    let out_dir = out_dir()?;
    let folder = out_dir.ancestors().nth(4).context("OUT_DIR lies in no target folder")?.join("ebpf");
    // The linker makes the object's BTF out of its debug information.
    let flags = [&format!("--cfg=bpf_target_arch=\"{architecture}\""), "-Cdebuginfo=2", "-Clink-arg=--btf"];
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, "cargo", "build", "--quiet", "--release", "-Zbuild-std=core"])
        .args(["--package", "observer-ebpf", "--bin", "observer-ebpf", "--target", target, "--target-dir"])
        .arg(&folder)
        .current_dir(&root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // A toolchain that is no nightly builds `core` only with this.
        .env("RUSTC_BOOTSTRAP", "1");
    // Those of the cargo that runs this script would be used instead of the toolchain's.
    for name in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO"] {
        command.env_remove(name);
    }
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("building the eBPF object failed ({}): {command:?}\n{told}", output.status);
    }
    for line in told.lines() {
        println!("cargo::warning={line}");
    }
    let object = folder.join(target).join("release/observer-ebpf");
    fs::copy(&object, out_dir.join("observer-ebpf"))
        .with_context(|| format!("the eBPF build left no {}", object.display()))?;
    Ok(())
}
