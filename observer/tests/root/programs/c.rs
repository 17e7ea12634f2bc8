//! Builds and runs the C programs that tests observe (`xtask/targets/c`): each takes commands on its standard input, and
//! answers each with a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use observer::kernel::{KernelOptions, Probes, TargetHandle, ThreadRecord};

/// As users build theirs: without frame pointers, with symbols.
pub const USUAL: [&str; 3] = ["-O2", "-fomit-frame-pointer", "-pthread"];

/// Builds `NAME/NAME.c` into a directory, under that name.
pub fn compile(compiler: &str, name: &str, flags: &[&str], directory: &Path) -> PathBuf {
    let program = directory.join(name);
    compile_as(&program, compiler, name, flags);
    program
}

/// The same, under another name.
pub fn compile_as(program: &Path, compiler: &str, name: &str, flags: &[&str]) {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/c");
    let source = targets.join(name).join(format!("{name}.c"));
    let mut command = Command::new(compiler);
    command.arg("-o").arg(program).arg(source).args(flags);
    let compiled = command.status().expect("a C compiler (install: cargo xtask setup)");
    assert!(compiled.success(), "{compiler} {name}.c {flags:?}");
}

/// A program that runs; it is ended when this is dropped.
pub struct Program {
    pub child: Child,
    pub commands: ChildStdin,
    pub answers: BufReader<ChildStdout>,
    /// What it was built in.
    _directory: Option<tempfile::TempDir>,
}

impl Program {
    pub fn start(command: &mut Command, directory: Option<tempfile::TempDir>) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers, _directory: directory }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command; the line that it is answered with.
    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer
    }

    /// Gives a command that is carried out without a word.
    pub fn tell(&mut self, command: &str) {
        assert_eq!(self.ask(command), "ok\n", "to {command}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel's census of a target.
pub struct Census {
    kernel: Probes,
    handle: TargetHandle,
}

impl Census {
    pub fn of(pid: u32) -> Self {
        let mut kernel = Probes::load(&KernelOptions::default()).unwrap();
        let handle = kernel.add_target(pid).unwrap();
        Self { kernel, handle }
    }

    /// Turns to another target.
    pub fn turn_to(&mut self, pid: u32) {
        self.handle = self.kernel.add_target(pid).unwrap();
    }

    pub fn take(&mut self) -> Vec<ThreadRecord> {
        self.kernel.census(&self.handle).unwrap().threads
    }
}
