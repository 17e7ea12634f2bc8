//! The container images: a static observer and nothing else, for root and for another user.
//!
//! Builds the program, strips it, and has deploy/image/build put it into images with buildah.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::run::{self, Clock};
use crate::setup::{self, Purpose};
use crate::{build, place};

/// An image may have so many bytes.
const MOST: u64 = 30_000_000;

#[derive(Args)]
pub struct Options {
    /// What to call it; the image for users other than root has `-nonroot` after that
    /// [default: localhost/observer:dev, and for arm64 dev-arm64]
    #[arg(long, value_name = "NAME:TAG")]
    tag: Option<String>,
    /// The processor it is for
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// Write both as archives (OCI) into this directory too
    #[arg(long, value_name = "DIRECTORY")]
    archives: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Amd64,
    /// Cross-built
    Arm64,
}

impl Arch {
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What takes off its debug information.
    pub fn strip(self) -> &'static str {
        match self {
            Self::Amd64 => "strip",
            Self::Arm64 => "aarch64-linux-gnu-strip",
        }
    }
}

pub fn image(options: &Options) -> Result<()> {
    let clock = Clock::start();
    if !nix::unistd::geteuid().is_root() {
        bail!("images are made by root, or within `buildah unshare`");
    }
    let (purpose, tag) = match options.arch {
        Arch::Amd64 => (Purpose::Image, "localhost/observer:dev"),
        Arch::Arm64 => (Purpose::Arm64, "localhost/observer:dev-arm64"),
    };
    setup::ensure(purpose, clock)?;
    let program = shipped(clock, options.arch)?;
    if options.arch == Arch::Arm64 {
        emulated(clock, &program)?;
    }
    let bytes = fs::metadata(&program)?.len();
    let names = make(clock, &program, options.arch, options.tag.as_deref().unwrap_or(tag), &[])?;
    for name in &names {
        clock.say("image", &format!("{name}, {:.1} MB", bytes as f64 / 1e6));
        let Some(directory) = &options.archives else { continue };
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
        let path = directory.join(format!("{file}.tar"));
        let to = format!("oci-archive:{}:{name}", path.display());
        let says = place::shown(&path);
        clock.run_logged("archive", &says, Command::new("buildah").args(["push", "--quiet", name, &to]))?;
    }
    Ok(())
}

/// The program as it is shipped, which must not be too large.
pub fn shipped(clock: Clock, arch: Arch) -> Result<PathBuf> {
    let built = match arch {
        Arch::Amd64 => build::dist(clock)?,
        Arch::Arm64 => build::dist_arm64(clock)?,
    };
    let program = stripped(&built, arch)?;
    let bytes = fs::metadata(&program)?.len();
    if bytes > MOST {
        bail!("{} has {bytes} bytes, and an image is to have at most {MOST}", program.display());
    }
    Ok(program)
}

/// A copy without debug information, which must be static.
pub fn stripped(program: &Path, arch: Arch) -> Result<PathBuf> {
    let folder = place::work().join("image").join(arch.name());
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let copy = folder.join("observer");
    run::check(Command::new(arch.strip()).arg("-o").arg(&copy).arg(program))?;
    let headers = run::output("readelf", &["--program-headers", "--wide", &copy.to_string_lossy()]);
    let headers = headers.with_context(|| format!("readelf cannot read {}", copy.display()))?;
    if headers.contains("INTERP") {
        bail!("{} is not static: an image of it alone does not run", copy.display());
    }
    Ok(copy)
}

/// It starts, and has its eBPF object. An emulated processor has no eBPF of its own to load that into.
fn emulated(clock: Clock, program: &Path) -> Result<()> {
    let version = run::output(setup::EMULATOR, &[&program.to_string_lossy(), "--version"]);
    match version {
        Some(version) if version.contains("with eBPF") => {
            clock.say("image", &format!("{version}, in {}", setup::EMULATOR));
            Ok(())
        }
        said => bail!("{} does not start in {}: {said:?}", program.display(), setup::EMULATOR),
    }
}

/// Makes both images of it; `environment` says where buildah keeps them.
pub fn make(
    clock: Clock,
    program: &Path,
    arch: Arch,
    tag: &str,
    environment: &[(&str, OsString)],
) -> Result<[String; 2]> {
    let (name, version) = tag.rsplit_once(':').context("a name and a tag, as in localhost/observer:dev")?;
    let mut command = Command::new(place::root().join("deploy/image/build"));
    command.arg(program).args([name, version, arch.name()]).envs(environment.iter().map(|(k, v)| (k, v)));
    clock.run_logged("image", &format!("{tag} and {tag}-nonroot (buildah)"), &mut command)?;
    Ok([tag.to_owned(), format!("{tag}-nonroot")])
}
