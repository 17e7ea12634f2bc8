//! What builds observer for arm64 on another processor: Rust's standard library for it, and a linker.
//!
//! Where rustup has that library it is used. Debian's is fetched with lists of its own and unpacked into the cache: what
//! dpkg and apt hold of this machine stays as it is.

use std::path::PathBuf;

use anyhow::Result;

use super::{Need, Recipe, State, Step, ebpf};
use crate::{place, run};

pub const TARGET: &str = "aarch64-unknown-linux-gnu";
pub const LINKER: &str = "aarch64-linux-gnu-gcc";
pub const EMULATOR: &str = "qemu-aarch64";

/// Of the very version that Debian's compiler has.
const LIBRARY: &str = "version=$(dpkg-query --show --showformat=\"\\${Version}\" rustc-web); apt-get update; \
    rm -rf \"$version\"; apt-get download \"libstd-rust-web-dev=$version\"; \
    dpkg --extract libstd-rust-web-dev_*.deb \"$version\"; rm libstd-rust-web-dev_*.deb";

/// The library of a toolchain.
pub struct Library {
    /// Not the checkout's own toolchain but this one, with this directory as its sysroot.
    pub elsewhere: Option<(&'static str, PathBuf)>,
}

pub fn each() -> Result<Vec<Need>> {
    Ok(vec![
        library_need()?,
        Need::program(
            "gcc for arm64",
            "links, and compiles what is C",
            LINKER,
            &["--version"],
            &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        ),
        Need::program("QEMU for arm64", "runs what was built", EMULATOR, &["--version"], &["qemu-user"]),
    ])
}

pub fn library() -> Result<Option<Library>> {
    let sysroot = run::output("rustc", &["--print", "sysroot"]).map(PathBuf::from);
    if sysroot.is_some_and(|sysroot| holds(&sysroot)) {
        return Ok(Some(Library { elsewhere: None }));
    }
    let Some(unpacked) = unpacked()? else { return Ok(None) };
    Ok(holds(&unpacked).then_some(Library { elsewhere: Some((ebpf::LINKED_TOOLCHAIN, unpacked)) }))
}

fn holds(sysroot: &std::path::Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").exists()
}

/// A command that runs another one with apt for arm64, in a directory of the cache.
pub fn with_apt(command: &str) -> Result<String> {
    let script = place::root().join("xtask/src/setup/arm64.sh");
    Ok(format!("sh '{}' '{}' '{command}'", script.display(), directory()?.display()))
}

/// What is unpacked for arm64.
fn directory() -> Result<PathBuf> {
    Ok(place::cache()?.join("arm64"))
}

/// The shell of its machines.
pub fn busybox() -> Result<PathBuf> {
    Ok(directory()?.join("busybox/bin/busybox"))
}

/// What the tests on its kernels need besides [`each`].
pub fn machines() -> Result<Vec<Need>> {
    let busybox = busybox()?;
    let state = if busybox.exists() {
        State::Here(busybox.display().to_string())
    } else {
        State::Missing(Recipe {
            steps: vec![Step {
                says: "busybox for arm64 (Debian package)".to_owned(),
                shell: with_apt(
                    "apt-get update; apt-get download busybox-static; dpkg --extract busybox-static_*.deb busybox; \
                     rm busybox-static_*.deb",
                )?,
            }],
            elsewhere: vec!["(get a static busybox for arm64 from your distribution)".to_owned()],
            ..Recipe::default()
        })
    };
    Ok(vec![
        Need { what: "busybox for arm64".to_owned(), why: "is the shell of its machines", state },
        Need::program(
            "QEMU's arm64 machine",
            "runs its kernels",
            "qemu-system-aarch64",
            &["--version"],
            &["qemu-system-arm"],
        ),
        Need::program("cpio", "packs what those machines start with", "cpio", &["--version"], &["cpio"]),
    ])
}

/// Where Debian's goes: it must be of the very version that Debian's compiler has.
fn unpacked() -> Result<Option<PathBuf>> {
    let Some(version) = debian_version() else { return Ok(None) };
    Ok(Some(directory()?.join(version).join("usr")))
}

fn debian_version() -> Option<String> {
    run::output("dpkg-query", &["--show", "--showformat=${Version}", "rustc-web"])
        .filter(|version| !version.is_empty())
}

fn library_need() -> Result<Need> {
    const RUSTUP: &str = "rustup target add aarch64-unknown-linux-gnu";
    let state = match library()? {
        Some(Library { elsewhere: None }) => State::Here(format!("Rust's {TARGET}")),
        Some(Library { elsewhere: Some((toolchain, _)) }) => {
            State::Here(format!("Rust's {TARGET} for {toolchain}"))
        }
        None if ebpf::debian_way() => State::Missing(Recipe {
            steps: vec![Step {
                says: "Debian's Rust library for arm64".to_owned(),
                shell: with_apt(LIBRARY)?,
            }],
            elsewhere: vec![RUSTUP.to_owned()],
            ..Recipe::default()
        }),
        None => State::Missing(Recipe {
            steps: vec![Step { says: format!("Rust's {TARGET} (rustup)"), shell: RUSTUP.to_owned() }],
            elsewhere: vec![RUSTUP.to_owned()],
            ..Recipe::default()
        }),
    };
    Ok(Need { what: "Rust for arm64".to_owned(), why: "the standard library for that processor", state })
}
