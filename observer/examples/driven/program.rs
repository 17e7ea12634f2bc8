//! A program that runs a loop when it is told to, and says how many seconds of CPU that took: what the examples that
//! measure costs drive. Built from `xtask/targets/c/`, ended when it is dropped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Builds one of `xtask/targets/c/`, at a path of its own: whoever has started it removes it.
pub fn build(program: &str) -> Result<PathBuf> {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/c").join(program).join("main.c");
    let binary = std::env::temp_dir().join(format!("observer-cost-{}-{program}", std::process::id()));
    let built = Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&binary).arg(source).status()?;
    ensure!(built.success(), "cc {program}");
    Ok(binary)
}

pub struct Driven {
    pub child: Child,
    output: BufReader<ChildStdout>,
}

impl Driven {
    /// Starts it, and waits until it says that it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        let mut started = Self { child, output };
        started.line()?;
        Ok(started)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// Seconds of CPU for one run by an order.
    pub fn run(&mut self, order: &str) -> Result<f64> {
        writeln!(self.child.stdin.as_mut().context("piped")?, "{order}")?;
        Ok(self.line()?.trim().parse()?)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // Both fail only when it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
