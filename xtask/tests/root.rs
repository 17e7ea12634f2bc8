//! observer/build.rs as somebody meets it who builds first and installs the eBPF toolchain afterwards.
//!
//! Runs that script, unchanged, in a package of its own: the object that it builds is the real one, and what is compiled
//! besides are three lines. Needs the eBPF toolchain and rustup; the first run builds `core` where nobody has yet.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Says what observer's `--version` and its binary make of the script's answer.
const PROGRAM: &str = r#"fn main() {
    #[cfg(observer_ebpf)]
    println!("object of {} bytes", include_bytes!(concat!(env!("OUT_DIR"), "/observer-ebpf")).len());
    #[cfg(not(observer_ebpf))]
    println!("none: {}", env!("OBSERVER_EBPF_MISSING"));
}
"#;

const MANIFEST: &str = r#"[package]
name = "observer"
version = "0.0.0"
edition = "2024"

[build-dependencies]
anyhow = "1"

[workspace]
"#;

/// A package with the real build script, and programs that it finds or does not find.
struct Checkout {
    root: TempDir,
    path: Vec<PathBuf>,
    rustup_home: Option<PathBuf>,
}

/// What one `cargo build` did.
struct Built {
    compiled: bool,
    says: String,
}

impl Checkout {
    /// With `PATH` as it is here, but for bpf-linker.
    fn without_linker() -> Self {
        let root = tempfile::tempdir().unwrap();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let package = root.path().join("observer");
        fs::create_dir_all(package.join("src")).unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::write(package.join("Cargo.toml"), MANIFEST).unwrap();
        fs::write(package.join("src/main.rs"), PROGRAM).unwrap();
        fs::copy(checkout.join("observer/build.rs"), package.join("build.rs")).unwrap();
        for name in ["observer-ebpf", "observer-common"] {
            symlink(checkout.join(name), root.path().join(name)).unwrap();
        }
        // The same build of `core` as everybody's in this checkout.
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or(checkout.join("target"), |given| checkout.join(given));
        fs::create_dir_all(target.join("ebpf")).unwrap();
        fs::create_dir(root.path().join("target")).unwrap();
        symlink(target.join("ebpf"), root.path().join("target/ebpf")).unwrap();

        let (with, without): (Vec<PathBuf>, Vec<PathBuf>) =
            folders().into_iter().partition(|folder| folder.join("bpf-linker").exists());
        assert!(!with.is_empty(), "no bpf-linker (install: cargo xtask setup)");
        let bin = root.path().join("bin");
        for program in ["rustup", "cc"] {
            let place = folders().into_iter().map(|folder| folder.join(program)).find(|place| place.exists());
            symlink(place.unwrap_or_else(|| panic!("no {program}")), bin.join(program)).unwrap();
        }
        let path = std::iter::once(bin).chain(without).collect();
        Self { root, path, rustup_home: None }
    }

    fn install_linker(&self) {
        let linker =
            folders().into_iter().map(|folder| folder.join("bpf-linker")).find(|place| place.exists());
        symlink(linker.unwrap(), self.root.path().join("bin/bpf-linker")).unwrap();
    }

    fn build(&self) -> Built {
        // Not rustup's cargo, which puts its own folder, and bpf-linker in it, in front of `PATH`.
        let cargo = PathBuf::from(env::var_os("CARGO").unwrap());
        let mut command = Command::new(&cargo);
        command
            .args(["build", "--offline"])
            .current_dir(self.root.path().join("observer"))
            .env("PATH", env::join_paths(&self.path).unwrap())
            .env("CARGO_TARGET_DIR", self.root.path().join("target"))
            .env("RUSTC", cargo.with_file_name("rustc"))
            .env("RUSTUP_AUTO_INSTALL", "0")
            .env_remove("OBSERVER_EBPF")
            .env_remove("OBSERVER_EBPF_TOOLCHAIN");
        for (name, _) in env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            command.env_remove(name);
        }
        if let Some(home) = &self.rustup_home {
            command.env("RUSTUP_HOME", home);
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let program = Command::new(self.root.path().join("target/debug/observer")).output().unwrap();
        Built {
            compiled: told.contains("Compiling observer "),
            says: String::from_utf8_lossy(&program.stdout).trim().to_owned(),
        }
    }
}

fn folders() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap()).collect()
}

#[track_caller]
fn has_object(built: &Built) {
    let bytes = built.says.strip_prefix("object of ").and_then(|rest| rest.strip_suffix(" bytes"));
    let bytes: usize = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("{}", built.says));
    assert!(bytes > 10_000, "{bytes} bytes");
}

#[test]
#[ignore = "needs the eBPF toolchain"]
fn root_a_linker_that_comes_later_is_found_by_the_next_build() {
    let checkout = Checkout::without_linker();
    let first = checkout.build();
    assert_eq!(first.says, "none: no bpf-linker (install: cargo xtask setup)");
    let again = checkout.build();
    assert!(
        !again.compiled && again.says == first.says,
        "nothing came, and it was built again: {}",
        again.says
    );

    checkout.install_linker();
    has_object(&checkout.build());
    let again = checkout.build();
    assert!(!again.compiled, "the object is there, and it was built again");
    has_object(&again);
}

#[test]
#[ignore = "needs the eBPF toolchain"]
fn root_a_toolchain_that_comes_later_is_found_by_the_next_build() {
    let mut checkout = Checkout::without_linker();
    checkout.install_linker();
    let home = checkout.root.path().join("rustup");
    fs::create_dir(&home).unwrap();
    checkout.rustup_home = Some(home);
    let first = checkout.build();
    assert_eq!(first.says, "none: no Rust toolchain with the sources of `core` (install: cargo xtask setup)");

    checkout.rustup_home = None;
    has_object(&checkout.build());
    assert!(!checkout.build().compiled, "the object is there, and it was built again");
}
