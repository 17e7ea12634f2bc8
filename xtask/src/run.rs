//! Running other programs: what is said while they run, and how they end.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt::interrupted;
use crate::place;

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// How much of a log is shown when its command failed.
const TAIL_BYTES: u64 = 4096;

/// Minutes and seconds since xtask began, before each line it says.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn say(self, what: &str, text: &str) {
        println!("[{}] {what:<8} {text}", self.elapsed());
    }

    fn elapsed(self) -> String {
        let seconds = self.0.elapsed().as_secs();
        format!("{:>2}:{:02}", seconds / 60, seconds % 60)
    }

    /// Runs a command with its output in a log; says how long it has been at it, and what it does just now.
    pub fn run_logged(self, what: &str, text: &str, command: &mut Command) -> Result<()> {
        fs::create_dir_all(place::work())
            .with_context(|| format!("cannot create {}", place::work().display()))?;
        let name: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
        let path = place::work().join(format!("{name}.log"));
        let log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);

        let began = Instant::now();
        let mut told = Instant::now();
        let live = io::stdout().is_terminal();
        if !live {
            self.say(what, text);
        }
        let status = wait(command, |_| {
            let every = Duration::from_secs(if live { 1 } else { 15 });
            if told.elapsed() >= every {
                told = Instant::now();
                let last = last_line(&path);
                if live {
                    let line: String = format!("[{}] {what:<8} {text} ... {last}", self.elapsed());
                    let line: String = line.chars().take(100).collect();
                    print!("\r\x1b[K{line}");
                    // Progress that cannot be shown is no reason to stop.
                    let _ = io::stdout().flush();
                } else {
                    println!("         ... {} s  {last}", began.elapsed().as_secs());
                }
            }
        })?;
        if live {
            print!("\r\x1b[K");
            self.say(what, &format!("{text} ({} s)", began.elapsed().as_secs()));
        }
        if !status.success() {
            bail!("{text} failed ({status}); the end of {}:\n{}", place::shown(&path), tail(&path));
        }
        Ok(())
    }
}

/// Runs a command in the foreground and returns how it ended. An interrupted one is stopped and an error.
pub fn wait(command: &mut Command, meanwhile: impl FnMut(&Child)) -> Result<ExitStatus> {
    wait_patiently(command, GRACE, meanwhile)
}

fn wait_patiently(
    command: &mut Command,
    grace: Duration,
    mut meanwhile: impl FnMut(&Child),
) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {name}"))? {
            if interrupted() {
                bail!("interrupted");
            }
            return Ok(status);
        }
        if interrupted() {
            // It got the terminal's Ctrl-C too: let it finish what it has to say.
            stop(&mut child, grace);
            bail!("interrupted");
        }
        meanwhile(&child);
        thread::sleep(POLL);
    }
}

/// Runs a command whose output is the user's to see, and fails when it fails.
pub fn check(command: &mut Command) -> Result<()> {
    check_patiently(command, GRACE)
}

/// The same for one that has to clean up when it is interrupted, and takes its time for that.
pub fn check_patiently(command: &mut Command, grace: Duration) -> Result<()> {
    let shown = shown(command);
    let status = wait_patiently(command, grace, |_| ())?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// What a command prints, or nothing when it cannot run or fails.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Its arguments, as one would type them.
pub fn shown_arguments(command: &Command) -> String {
    command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program in the background, stopped when this is dropped.
pub struct Background {
    child: Child,
    name: &'static str,
    kept: bool,
}

impl Background {
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name, kept: false })
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// An error when it has ended already.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status})", self.name),
        }
    }

    /// Leaves it running.
    pub fn keep(mut self) -> u32 {
        self.kept = true;
        self.child.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.kept {
            stop(&mut self.child, GRACE);
        }
    }
}

/// SIGTERM, and SIGKILL when that does not help. The child is not reaped before, so its pid is its own.
fn stop(child: &mut Child, grace: Duration) {
    if let Ok(pid) = i32::try_from(child.id())
        && matches!(child.try_wait(), Ok(None))
    {
        // It may end at this very moment; then there is nothing left to do.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let asked = Instant::now();
    while asked.elapsed() < grace {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(POLL);
    }
    // Both fail only for a child that is gone.
    let _ = child.kill();
    let _ = child.wait();
}

fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

fn last_line(path: &Path) -> String {
    let text = tail(path);
    let last = text.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(70).collect()
}
