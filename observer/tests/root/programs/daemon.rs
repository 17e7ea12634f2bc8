//! Runs `observer run` as its user does, on a free port, and asks it over HTTP.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// As long as anything may take on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Daemon {
    child: Child,
    pub address: String,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// With these arguments, on a port of its own.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_observer")).arg("run").args(arguments))
    }

    /// As `command` has it, on a port of its own.
    pub fn start_as(command: &mut Command) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .env("RUST_BACKTRACE", "1")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("observer starts");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut daemon = Self { child, address: String::new(), log };
        daemon.address = until("it says where it listens", || {
            daemon.log().lines().find_map(|line| line.split("listening on http://").nth(1).map(str::to_owned))
        });
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The body of an answer, whatever its status.
    pub fn get(&self, path: &str) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .build()
            .into();
        let answer = agent.get(format!("http://{}{path}", self.address)).call();
        answer
            .unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
            .body_mut()
            .read_to_string()
            .unwrap()
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        let text = self.get(path);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// The value of the one series that begins so.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics");
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Asks it to end, and waits until it has; its exit code and its log.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.signal(Signal::SIGTERM);
        let status = until("it ends", || self.child.try_wait().unwrap());
        thread::sleep(Duration::from_millis(50));
        (status.code(), self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- its log:\n{}", self.log());
        }
    }
}

/// Asks again and again until there is something.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}
