//! `cargo xtask deb`: the Debian package. Builds the program as it is shipped, has it write its own manual and
//! completions, and leaves the rest to cargo-deb, which reads `[package.metadata.deb]` in observer/Cargo.toml.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::build::{self, cargo};
use crate::place;
use crate::run::{self, Clock};
use crate::setup::{self, Purpose};

#[derive(Args)]
pub struct Options {
    /// The version, where it is not observer's own
    #[arg(long)]
    version: Option<String>,
}

/// Where the shells look for them, by name.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "observer.bash"), ("zsh", "_observer"), ("fish", "observer.fish")];

pub fn deb(options: &Options) -> Result<()> {
    let clock = Clock::start();
    setup::ensure(Purpose::Deb, clock)?;
    let observer = build::dist(clock)?;
    generate(&observer)?;
    let package = pack(clock, options.version.as_deref())?;
    clock.say("deb", &format!("{}: apt-get install ./{0}", place::shown(&package)));
    Ok(())
}

/// Manual and completions, in `package/` beside the program: cargo-deb takes them from there, and leaves as it is what
/// lies among what was built. Returns the directory.
pub fn generate(observer: &Path) -> Result<PathBuf> {
    let directory = observer.with_file_name("package");
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let (manual, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&manual)?;
    fs::create_dir_all(&completions)?;
    run::check(Command::new(observer).arg("man").arg(&manual))?;
    run::check(Command::new("gzip").args(["--best", "--no-name", "--recursive"]).arg(&manual))?;
    for (shell, name) in COMPLETIONS {
        let file = fs::File::create(completions.join(name))?;
        run::check(Command::new(observer).args(["completions", shell]).stdout(Stdio::from(file)))?;
    }
    Ok(directory)
}

/// Of what [`build::dist`] and [`generate`] made.
pub fn pack(clock: Clock, version: Option<&str>) -> Result<PathBuf> {
    let directory = place::target().join("debian");
    let before = newest(&directory);
    let mut command = cargo();
    command.args(["deb", "--package", "observer", "--profile", "dist", "--no-build", "--locked"]);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    clock.run_logged("deb", "cargo-deb", &mut command)?;
    let after = newest(&directory);
    match after {
        Some((when, path)) if before.is_none_or(|(then, _)| then < when) => Ok(path),
        _ => bail!("cargo-deb wrote no package to {}", directory.display()),
    }
}

fn newest(directory: &Path) -> Option<(std::time::SystemTime, PathBuf)> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
}
