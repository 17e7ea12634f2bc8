//! The service of the demo, as tests run it: leaking or fixed, under load.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::observer::Victim;

/// The demo's service, built by the newest Go toolchain that setup installed.
pub fn build(directory: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let toolchains = fs::read_dir(cache.join("observer/go")).into_iter().flatten().flatten();
    let mut toolchains: Vec<PathBuf> = toolchains.map(|entry| entry.path()).collect();
    toolchains.retain(|root| root.join("bin/go").exists());
    toolchains.sort();
    let root = toolchains.pop().expect("a Go toolchain (install: cargo xtask setup)");
    let program = directory.join("checkout");
    let built = Command::new(root.join("bin/go"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/go/checkout"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg("./cmd/checkout")
        .env("GOROOT", &root)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .status();
    assert!(built.expect("go runs").success());
    program
}

/// The service and its load; they end with it, or after ten minutes.
pub struct Checkout {
    _load: Victim,
    pub service: Victim,
}

impl Checkout {
    /// Under so many carts a second.
    pub fn start(program: &Path, arguments: &[&str], rate: u32) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--for", "10m"]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut service = Victim::start(&mut command);
        let mut line = String::new();
        BufReader::new(service.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("listening on ").expect("an address").1.to_owned();
        let mut command = Command::new(program);
        command
            .args(["load", "--target", &address, "--for", "10m", "--rate", &rate.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self { _load: Victim::start(&mut command), service }
    }
}
