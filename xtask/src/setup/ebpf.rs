//! What builds the eBPF object: a Rust toolchain with the sources of `core`, and bpf-linker.
//!
//! observer/build.rs looks for the same; keep the two alike. bpf-linker must know an LLVM at least as
//! new as the one of the toolchain, so the two come from one place: Debian's packages where they are new
//! enough, else rustup's nightly and a released bpf-linker.

use std::env;
use std::path::Path;

use super::{Need, Recipe, State, Step, debian};
use crate::run;

pub const LINKED_TOOLCHAIN: &str = "observer-ebpf";
const LINKER_VERSION: &str = "0.13.0";
/// What Debian's bpf-linker is built with.
const DEBIAN_LLVM: u32 = 22;

pub fn rust() -> Need {
    let state = match toolchain() {
        Some(name) => State::Here(format!("Rust toolchain {name} for eBPF")),
        None if debian_way() => State::Missing(Recipe {
            packages: vec!["rustc-web", "rust-web-src", "cargo-web"],
            steps: vec![Step {
                says: format!("rustup toolchain {LINKED_TOOLCHAIN} (a link to Debian's in /usr)"),
                shell: format!("rustup toolchain link {LINKED_TOOLCHAIN} /usr"),
            }],
            elsewhere: vec![NIGHTLY.to_owned()],
        }),
        None => State::Missing(Recipe {
            steps: vec![Step {
                says: "Rust nightly with the sources of core (rustup)".to_owned(),
                shell: NIGHTLY.to_owned(),
            }],
            elsewhere: vec![NIGHTLY.to_owned()],
            ..Recipe::default()
        }),
    };
    Need {
        what: "Rust for eBPF".to_owned(),
        why: "a toolchain with the sources of `core` builds the eBPF programs",
        state,
    }
}

const NIGHTLY: &str = "rustup toolchain install nightly --profile minimal --component rust-src";

pub fn linker() -> Need {
    let state = match run::output("bpf-linker", &["--version"]) {
        Some(version) => State::Here(version.lines().next().unwrap_or("bpf-linker").to_owned()),
        None if debian_way() && toolchain_llvm().is_none_or(|llvm| llvm <= DEBIAN_LLVM) => {
            State::Missing(Recipe {
                packages: vec!["llvm-22-dev"],
                steps: vec![Step {
                    says: format!("bpf-linker {LINKER_VERSION} (cargo install)"),
                    shell: format!(
                        "LLVM_SYS_221_PREFIX=/usr/lib/llvm-22 LLVM_PREFIX=/usr/lib/llvm-22 \
                     RUSTFLAGS='-L /usr/lib/llvm-22/lib' cargo install bpf-linker --version {LINKER_VERSION} \
                     --locked --no-default-features --features llvm-22"
                    ),
                }],
                elsewhere: vec![released()],
            })
        }
        None => State::Missing(Recipe {
            packages: vec!["curl", "zstd"],
            steps: vec![Step {
                says: format!("bpf-linker {LINKER_VERSION} (its release)"),
                shell: released(),
            }],
            elsewhere: vec![released()],
        }),
    };
    Need { what: "bpf-linker".to_owned(), why: "links the eBPF programs", state }
}

/// The released binary brings its own LLVM.
fn released() -> String {
    let arch = env::consts::ARCH;
    format!(
        "curl -fsSL https://github.com/aya-rs/bpf-linker/releases/download/v{LINKER_VERSION}/\
         bpf-linker-{arch}-unknown-linux-musl.tar.zst | tar --zstd -x -C \"${{CARGO_HOME:-$HOME/.cargo}}/bin\""
    )
}

/// The toolchain that builds the eBPF object, if there is one.
fn toolchain() -> Option<String> {
    if let Ok(name) = env::var("OBSERVER_EBPF_TOOLCHAIN") {
        return has_sources(&name).then_some(name);
    }
    [LINKED_TOOLCHAIN, "nightly"].into_iter().find(|name| has_sources(name)).map(str::to_owned)
}

fn has_sources(toolchain: &str) -> bool {
    run::output("rustup", &["run", toolchain, "rustc", "--print", "sysroot"]).is_some_and(|sysroot| {
        Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    })
}

/// The major version of the LLVM that the toolchain writes bitcode with.
fn toolchain_llvm() -> Option<u32> {
    let version = run::output("rustup", &["run", &toolchain()?, "rustc", "-vV"])?;
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

/// Debian's Rust for browsers is kept new; its LLVM is what bpf-linker is then built with.
pub fn debian_way() -> bool {
    debian::is_debian() && debian::offers("rustc-web", &[1, 95]) && debian::offers("llvm-22-dev", &[22])
}
