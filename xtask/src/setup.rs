//! Finds out what is missing, says it, and installs it where it may: as root on Debian and its kin.
//! Anywhere else it prints the commands and stops.

mod arm64;
mod debian;
mod debian_package;
mod deny;
mod ebpf;
mod go;
mod images;
mod kubelet;
mod manifests;
mod monitoring;
mod native;
mod peers;
mod qemu;

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::run::{self, Clock};

pub use self::arm64::{
    EMULATOR, LINKER, TARGET, busybox as arm64_busybox, library as arm64_library, with_apt as with_arm64_apt,
};
pub use self::go::newest as newest_go;
pub use self::manifests::kubectl;

#[derive(Args)]
pub struct Options {
    /// Only say what is here and what is missing; exit 1 when something is
    #[arg(long)]
    check: bool,
    /// What to get ready for
    #[arg(long = "for", value_enum, default_value = "all")]
    purpose: Purpose,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    Demo,
    Test,
    /// The tests on other kernels
    Vm,
    /// And on one for arm64
    VmArm64,
    /// Container images
    Image,
    /// And for arm64
    Arm64,
    /// The tests in pods
    Pods,
    Lint,
    /// Checking manifests and dashboard
    Validate,
    /// The pods on a real kubelet
    Kubelet,
    /// Measuring, beside other tools
    Bench,
    /// Building the Debian package
    Deb,
    /// Its tests
    Packages,
    All,
}

/// One thing that is needed, and whether it is here.
struct Need {
    what: String,
    why: &'static str,
    state: State,
}

impl Need {
    /// What a distribution has: `found` says which, where it is here.
    fn packaged(what: &str, why: &'static str, found: Option<String>, packages: &[&'static str]) -> Self {
        let state = match found {
            Some(found) => State::Here(found),
            None => State::Missing(Recipe {
                packages: packages.to_vec(),
                elsewhere: vec![format!("(install {what} from your distribution)")],
                ..Recipe::default()
            }),
        };
        Self { what: what.to_owned(), why, state }
    }

    /// A program, which says its version in its first line.
    fn program(
        what: &str,
        why: &'static str,
        program: &str,
        arguments: &[&str],
        packages: &[&'static str],
    ) -> Self {
        let said = run::output(program, arguments);
        let version = said.and_then(|said| Some(said.lines().next()?.to_owned()));
        Self::packaged(what, why, version, packages)
    }

    /// One as most are: a package has it, and it knows `--version`.
    fn tool(what: &str, why: &'static str, program: &str, package: &'static str) -> Self {
        Self::program(what, why, program, &["--version"], &[package])
    }
}

enum State {
    /// With its version or place.
    Here(String),
    Missing(Recipe),
}

/// How to get what is missing.
#[derive(Default)]
struct Recipe {
    packages: Vec<&'static str>,
    /// After the packages.
    steps: Vec<Step>,
    /// The commands where there are no such packages, or no such rights.
    elsewhere: Vec<String>,
}

struct Step {
    says: String,
    shell: String,
}

pub fn setup(options: &Options) -> Result<()> {
    let clock = Clock::start();
    if !options.check {
        return ensure(options.purpose, clock);
    }
    let needs = survey(options.purpose)?;
    let mut missing = false;
    for need in &needs {
        match &need.state {
            State::Here(found) => println!("here     {:<18} {found}", need.what),
            State::Missing(_) => {
                missing = true;
                println!("missing  {:<18} {}", need.what, need.why);
            }
        }
    }
    if missing {
        println!("\nTo install it: cargo xtask setup, or by hand:");
        print_commands(&needs);
        bail!("set-up is not complete");
    }
    Ok(())
}

/// Installs what is missing for the purpose, or says how and fails.
pub fn ensure(purpose: Purpose, clock: Clock) -> Result<()> {
    let mut needs = survey(purpose)?;
    let missing = names(&needs);
    if missing.is_empty() {
        let found: Vec<_> = needs.iter().filter_map(Need::here).collect();
        clock.say("set-up", &format!("nothing to install: {}", found.join(", ")));
        return Ok(());
    }
    clock.say("set-up", &format!("missing: {}", missing.join(", ")));
    if let Some(why) = debian::forbidden() {
        println!("\nNothing was installed: {why}. The commands are:\n");
        print_commands(&needs);
        println!("\nThen run the same command again.");
        bail!("missing: {}", missing.join(", "));
    }

    debian::refresh(clock);
    // Which way to go depends on the packages there are, known only now.
    needs = survey(purpose)?;
    install(&needs, clock).inspect_err(|_| {
        println!("\nInstalling did not work. Without the network, on a machine that has it, or by hand:\n");
        print_commands(&needs);
        println!();
    })?;

    needs = survey(purpose)?;
    let left = names(&needs);
    if !left.is_empty() {
        bail!("still missing after the installation: {} (see: cargo xtask setup --check)", left.join(", "));
    }
    clock.say("set-up", "complete");
    Ok(())
}

fn survey(purpose: Purpose) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    if !matches!(purpose, Purpose::Lint | Purpose::Validate) {
        needs.push(ebpf::rust());
        needs.push(ebpf::linker());
    }
    match purpose {
        Purpose::Demo => needs.push(go::any()?),
        Purpose::Test => {
            needs.extend(go::each()?);
            needs.extend(monitoring::each());
            needs.extend(native::each());
        }
        Purpose::Vm => {
            needs.push(go::any()?);
            needs.extend(qemu::each());
        }
        Purpose::VmArm64 => {
            needs.push(go::any()?);
            needs.extend(arm64::each()?);
            needs.extend(arm64::machines()?);
        }
        Purpose::Image => needs.extend(images::builders()),
        Purpose::Arm64 => {
            needs.extend(images::builders());
            needs.extend(arm64::each()?);
        }
        Purpose::Pods => {
            needs.push(go::any()?);
            needs.extend(images::each());
        }
        Purpose::Lint => needs.push(deny::cargo_deny()),
        Purpose::Validate => needs.extend(manifests::each()?),
        Purpose::Kubelet => {
            needs.extend(images::each());
            needs.extend(kubelet::each());
            needs.push(manifests::kubectl_needed()?);
        }
        Purpose::Bench => {
            needs.push(go::any()?);
            needs.extend(peers::each());
        }
        Purpose::Deb => needs.extend(debian_package::building()),
        Purpose::Packages => {
            needs.push(go::any()?);
            needs.extend(debian_package::building());
            needs.extend(debian_package::testing());
        }
        Purpose::All => {
            needs.extend(go::each()?);
            needs.extend(monitoring::each());
            needs.extend(native::each());
            needs.extend(images::each());
            needs.extend(debian_package::building());
            needs.extend(debian_package::testing());
            needs.push(deny::cargo_deny());
            needs.extend(manifests::each()?);
        }
    }
    Ok(needs)
}

fn install(needs: &[Need], clock: Clock) -> Result<()> {
    let recipes: Vec<_> = needs.iter().filter_map(Need::recipe).collect();
    debian::install(&packages(&recipes), clock)?;
    for step in recipes.iter().flat_map(|recipe| &recipe.steps) {
        clock.run_logged("install", &step.says, Command::new("sh").args(["-ec", &step.shell]))?;
    }
    Ok(())
}

fn print_commands(needs: &[Need]) {
    let recipes: Vec<_> = needs.iter().filter_map(Need::recipe).collect();
    if debian::is_debian() {
        let packages = packages(&recipes);
        let sudo = if debian::is_root() { "" } else { "sudo " };
        if !packages.is_empty() {
            println!("  {sudo}apt-get update");
            println!("  {sudo}{}", debian::install_command(&packages));
        }
        for step in recipes.iter().flat_map(|recipe| &recipe.steps) {
            println!("  {}", step.shell);
        }
    } else {
        for command in recipes.iter().flat_map(|recipe| &recipe.elsewhere) {
            println!("  {command}");
        }
    }
}

fn packages(recipes: &[&Recipe]) -> Vec<&'static str> {
    let mut packages: Vec<_> = recipes.iter().flat_map(|recipe| recipe.packages.iter().copied()).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn names(needs: &[Need]) -> Vec<&str> {
    needs.iter().filter(|need| need.here().is_none()).map(|need| need.what.as_str()).collect()
}

impl Need {
    fn here(&self) -> Option<&str> {
        match &self.state {
            State::Here(found) => Some(found),
            State::Missing(_) => None,
        }
    }

    fn recipe(&self) -> Option<&Recipe> {
        match &self.state {
            State::Here(_) => None,
            State::Missing(recipe) => Some(recipe),
        }
    }
}
