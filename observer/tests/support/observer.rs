//! Runs the program as its user does, and keeps what it printed.

use std::process::{Child, Command, Output, Stdio};

/// Its command line; a backtrace that it would print, it is asked for.
pub fn observer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(arguments).env("RUST_BACKTRACE", "1").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a finished run printed.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("standard output is text"),
            err: String::from_utf8(output.stderr).expect("standard error is text"),
        }
    }

    /// Refused with this code, in one line on standard error that holds all of `words`, and nothing else.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert_eq!(self.out, "", "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("observer: "), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
    }
}

pub fn run(command: &mut Command) -> Ran {
    Ran::of(command.output().expect("the observer does not start"))
}

/// A process that is killed when this is dropped.
pub struct Victim(pub Child);

impl Victim {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
