//! The third ring: observer in pods, as deploy/kubernetes/examples has them, played by podman beside a leaking service of
//! another user.
//!
//! Needs root. What it takes lies in a directory of its own, with its own storage of images, and is removed again;
//! nothing of the machine's configuration is read or changed.

mod beside;
mod lacking;
mod manifest;
mod podman;
mod receiver;
mod sidecar;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::image::Arch;
use crate::interrupt::interrupted;
use crate::run::Clock;
use crate::setup::{self, Purpose};
use crate::{build, checkout, image};
pub use manifest::{OBSERVER, SERVICE};
pub use podman::Podman;

pub fn test(clock: Clock, quick: bool) -> Result<()> {
    setup::ensure(Purpose::Pods, clock)?;
    let program = if quick {
        image::stripped(&build::unoptimized_static(clock)?, Arch::Amd64)?
    } else {
        image::shipped(clock, Arch::Amd64)?
    };
    let service = checkout::build(clock)?;

    let podman = Podman::new()?;
    image::make(clock, &program, Arch::Amd64, OBSERVER, &podman.environment())?;
    podman.image_of(&service, SERVICE)?;
    for (name, scene) in SCENES {
        let began = Instant::now();
        scene(&podman, &service).with_context(|| format!("in pods: {name}"))?;
        clock.say("pods", &format!("{name} ({:.0} s)", began.elapsed().as_secs_f64()));
    }
    drop(podman);
    clock.say("test", "in pods: passed");
    Ok(())
}

type Scene = fn(&Podman, &std::path::Path) -> Result<()>;

const SCENES: [(&str, Scene); 7] = [
    (
        "the sidecar finds the leak of a service of another user, and follows its restart",
        sidecar::finds_the_leak,
    ),
    ("the sidecar is there before its service", sidecar::waits),
    ("a capability that is missing is named", lacking::capabilities),
    ("a memory limit that is too small is named", lacking::memory),
    ("not as root: with the file's capabilities, and with none", lacking::root),
    ("one look from a container that joins the service's PID namespace", beside::one_look),
    ("all of a node's, from the host's PID namespace", beside::whole_node),
];

/// What comes true within a time.
fn until<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if interrupted() {
            bail!("interrupted");
        }
        if began.elapsed() > Duration::from_secs(seconds) {
            bail!("not within {seconds} s: {what}{last}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// An error that says what was seen instead.
fn expect(holds: bool, what: &str, seen: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    bail!("not so: {what}. Seen:\n{seen}")
}
