//! Builds the eBPF object and embeds it, or, without the eBPF toolchain, embeds an empty one.
//!
//! `OBSERVER_EBPF=off` never builds it, `=require` fails without it; by default it is built when the
//! toolchain is there. `OBSERVER_EBPF_TOOLCHAIN` names the rustup toolchain to use.

use std::env;
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
            Err(error) if mode == "require" => {
                return Err(error.context("OBSERVER_EBPF=require, but the eBPF toolchain is not complete"));
            }
            Err(error) => Some(format!("{error:#}")),
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

/// A rustup toolchain with the sources of `core` that may build it, and bpf-linker beside it.
fn toolchain() -> Result<String> {
    if !runs("bpf-linker", &["--version"]) {
        bail!("no bpf-linker (install: cargo xtask setup)");
    }
    if let Ok(name) = env::var("OBSERVER_EBPF_TOOLCHAIN") {
        return Ok(name);
    }
    [LINKED_TOOLCHAIN, "nightly"]
        .into_iter()
        .find(|name| has_sources(name))
        .map(str::to_owned)
        .context("no Rust toolchain with the sources of `core` (install: cargo xtask setup)")
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

fn build(toolchain: &str) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../observer-ebpf");
    let root = root.to_str().context("the path of the checkout is not UTF-8")?;
    // A toolchain that is no nightly builds `core` only with this; nothing else is built under it.
    // SAFETY: a build script's main thread is its only thread.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf(
        [aya_build::Package { name: "observer-ebpf", root_dir: root, ..Default::default() }],
        aya_build::Toolchain::Custom(toolchain),
    )
}
