//! Builds and runs the Go programs that tests observe (`xtask/targets/go`).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Plain,
    /// No symbols, no debug information, loaded at any address.
    StrippedPie,
    /// Linked with C.
    Cgo,
    /// Linked with C into one file that needs no other.
    StaticCgo,
    /// Stripped, and the section table overwritten.
    NoSections,
}

/// Every Go toolchain, oldest first: those of `OBSERVER_GO_ROOT` (separated by `:`), else those that setup installed.
pub fn toolchains() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = match std::env::var_os("OBSERVER_GO_ROOT") {
        Some(roots) => std::env::split_paths(&roots).collect(),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache"),
                PathBuf::from,
            );
            std::fs::read_dir(cache.join("observer/go"))
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default()
        }
    };
    roots.retain(|root| root.join("bin/go").exists());
    assert!(!roots.is_empty(), "no Go toolchain; install them: cargo xtask setup");
    roots.sort();
    roots
}

pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Builds `xtask/targets/go/NAME` into a directory.
    pub fn build(go_root: &Path, name: &str, build: Build, directory: &Path) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/go").join(name);
        let path = directory.join(name);
        let mut command = Command::new(go_root.join("bin/go"));
        command.arg("build").arg("-trimpath").arg("-o").arg(&path);
        match build {
            Build::Plain | Build::Cgo => {}
            Build::StrippedPie => {
                command.args(["-ldflags=-s -w", "-buildmode=pie"]);
            }
            Build::StaticCgo => {
                command.args(["-ldflags=-linkmode external -extldflags -static"]);
            }
            Build::NoSections => {
                command.arg("-ldflags=-s -w");
            }
        }
        let status = command
            .arg(".")
            .current_dir(source)
            .env_remove("GOFLAGS")
            .env("GOROOT", go_root)
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", if matches!(build, Build::Cgo | Build::StaticCgo) { "1" } else { "0" })
            .status()
            .expect("go does not run");
        assert!(status.success(), "{} build of {name}: {status}", go_root.display());
        if build == Build::NoSections {
            wipe_section_headers(&path);
        }
        Self { path }
    }

    /// Has it say that it was built with another version, wherever it says so unpacked: `go1.27` to `go1.28`.
    pub fn pretend(&self, real: &str, version: &str) {
        assert_eq!(real.len(), version.len());
        let mut elf = std::fs::read(&self.path).unwrap();
        let places: Vec<usize> = memchr::memmem::find_iter(&elf, real).collect();
        assert!(!places.is_empty(), "{real} is not in {}", self.path.display());
        for at in places {
            elf[at..at + version.len()].copy_from_slice(version.as_bytes());
        }
        std::fs::write(&self.path, elf).unwrap();
    }

    /// Makes its file so large, with a hole at its end.
    pub fn pad(&self, bytes: u64) {
        std::fs::OpenOptions::new().write(true).open(&self.path).unwrap().set_len(bytes).unwrap();
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut child = Command::new(&self.path)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let output = BufReader::new(child.stdout.take().unwrap());
        Running { child, output }
    }
}

/// As packers and some strip tools leave a program.
fn wipe_section_headers(path: &Path) {
    let mut elf = std::fs::read(path).unwrap();
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let (start, length) = (word(40), half(58) * half(60));
    elf[start..start + length].fill(0);
    elf[40..48].fill(0);
    elf[58..64].fill(0);
    std::fs::write(path, elf).unwrap();
}

/// A program that is killed when this is dropped.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads what it prints up to a line that begins so, and gives that back.
    pub fn wait_for_line(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the program ended before it said `{start}`: {:?}", self.child.wait());
            if line.starts_with(start) {
                return line;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
