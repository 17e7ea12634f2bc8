//! Ring two: the eBPF programs against real processes. Needs root, the eBPF object and a C compiler.

mod census;
mod growth;
mod lifecycle;
mod privileges;
mod waits;
mod windows;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use observer::kernel::{KernelOptions, Probes};

/// Where a test that runs again as somebody else finds the programs built.
const PROGRAMS: &str = "OBSERVER_TEST_PROGRAMS";

/// A C program of `xtask/targets/c`, built with frame pointers.
fn build(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return PathBuf::from(folder).join(name);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/c").join(name).join("main.c");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Tests run side by side: each builds under a name of its own and moves it into place.
    let own = binary.with_extension(format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-"));
    let status = Command::new("cc")
        .args(["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"])
        .arg(&own)
        .arg(source)
        .status()
        .expect("cc runs (set up with `cargo xtask setup`)");
    assert!(status.success(), "cc {name}");
    fs::rename(&own, &binary).unwrap();
    binary
}

/// A running target; killed when dropped.
struct Target {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Target {
    fn start(name: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(build(name)).args(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the target ended");
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(options: &KernelOptions) -> Probes {
    Probes::load(options).unwrap_or_else(|error| panic!("{error} (ring two runs as root)"))
}

fn ready(target: &mut Target) -> u64 {
    u64::from_str_radix(target.line().strip_prefix("ready ").unwrap(), 16).unwrap()
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a child of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}
