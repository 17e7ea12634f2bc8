//! The demo's service and its load: built, started on loopback, stopped with what started them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::interrupt::interrupted;
use crate::run::{Background, Clock};
use crate::{place, setup};

/// Both programs end by themselves after this, whatever becomes of xtask.
const LIFE: Duration = Duration::from_secs(15 * 60);

pub struct Checkout {
    // Dropped in this order: first the load, then the service.
    load: Background,
    service: Background,
    address: String,
}

/// Builds it, and returns the program.
pub fn build(clock: Clock) -> Result<PathBuf> {
    let (go, version) = setup::newest_go().context("no Go toolchain (install: cargo xtask setup)")?;
    let program = place::work().join("checkout");
    let mut command = Command::new(go);
    command
        .current_dir(place::root().join("xtask/targets/go/checkout"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg("./cmd/checkout")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    clock.run_logged("build", &format!("the demo service, with Go {version}"), &mut command)?;
    Ok(program)
}

impl Checkout {
    pub fn start(program: &PathBuf, fixed: bool, rate: u32, tied: bool) -> Result<Self> {
        let life = format!("{}s", LIFE.as_secs());
        let mut command = Command::new(program);
        command.args(["serve", "--for", &life]).stdout(Stdio::piped());
        if fixed {
            command.arg("--fixed");
        }
        tie(&mut command, tied);
        let mut service = Background::start("the demo service", &mut command)?;
        let address = address(&mut service)?;

        let mut command = Command::new(program);
        command.args(["load", "--target", &address, "--rate", &rate.to_string(), "--for", &life]);
        command.stdout(Stdio::null());
        tie(&mut command, tied);
        let load = Background::start("the load", &mut command)?;
        Ok(Self { load, service, address })
    }

    pub fn pid(&mut self) -> u32 {
        self.service.child().id()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets it run under load for a while; an error when it does not live that long.
    pub fn warm_up(&mut self, time: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        let mut left = time;
        while !left.is_zero() {
            if interrupted() {
                bail!("interrupted");
            }
            thread::sleep(STEP);
            left = left.saturating_sub(STEP);
            self.check()?;
        }
        Ok(())
    }

    /// An error when the service or the load has ended.
    pub fn check(&mut self) -> Result<()> {
        self.service.still_runs()?;
        self.load.still_runs()
    }

    /// Leaves both running, and returns their pids.
    pub fn keep(self) -> [u32; 2] {
        [self.service.keep(), self.load.keep()]
    }
}

/// A tied program ends when xtask does, even by SIGKILL: its standard input is then closed.
fn tie(command: &mut Command, tied: bool) {
    if tied {
        command.arg("--tied").stdin(Stdio::piped());
    } else {
        command.stdin(Stdio::null());
    }
}

/// From the first line that the service prints.
fn address(service: &mut Background) -> Result<String> {
    let output = service.child().stdout.take().context("the demo service has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).context("cannot read from the demo service")?;
    let Some((_, address)) = line.trim().rsplit_once("listening on ") else {
        bail!("the demo service said `{}` instead of its address", line.trim());
    };
    Ok(address.to_owned())
}
