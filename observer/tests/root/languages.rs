//! Programs in six languages that let threads pile up, that grow, and that are healthy: watched side by side.
//! Needs root, the eBPF object, and compilers and runtimes (cargo xtask setup).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::observer::{Ran, Victim, observer};

const WINDOW: &str = "28s";

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets").join(path)
}

fn build(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error} (cargo xtask setup)"));
    assert!(status.success(), "{command:?}");
}

/// A target under observation.
struct Watched {
    name: &'static str,
    observer: Child,
    _victim: Victim,
}

/// Starts a program, and `observer` once it says that it is ready.
fn watch(name: &'static str, command: &mut Command) -> Watched {
    let mut victim = Victim::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(victim.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{name}");
    let pid = victim.pid().to_string();
    let mut attach = observer(&["attach", &pid, "--duration", WINDOW, "--format", "json"]);
    let observer = attach.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Watched { name, observer, _victim: victim }
}

/// What was found of a target.
struct Found {
    name: &'static str,
    document: Value,
}

impl Watched {
    fn end(self) -> Found {
        let ran = Ran::of(self.observer.wait_with_output().unwrap());
        let document: Value = serde_json::from_str(&ran.out)
            .unwrap_or_else(|error| panic!("{}: {error}: {} {}", self.name, ran.out, ran.err));
        Found { name: self.name, document }
    }
}

impl Found {
    fn say(&self) -> String {
        let verdict = &self.document;
        format!(
            "{}: {} {} {} culprits {:#} growth {:#}",
            self.name,
            verdict["verdict"],
            verdict["sentence"],
            verdict["second_sentence"],
            verdict["culprits"][0],
            verdict["growth_sites"][0],
        )
    }

    #[track_caller]
    fn runs_on(&self, runtime: &str) -> &Self {
        assert_eq!(self.document["target"]["runtime"]["name"], runtime, "{}", self.name);
        self
    }

    /// Threads that pile up some ten a second, at a function, for a reason, with these names.
    #[track_caller]
    fn leaks(
        &self,
        function: &str,
        reason: &str,
        thread_names: &str,
        per_second: std::ops::Range<f64>,
    ) -> &Self {
        assert_eq!(self.document["verdict"], "leak", "{}", self.say());
        let culprit = &self.document["culprits"][0];
        let site = culprit["site"]["function"].as_str().unwrap_or_default();
        assert!(site.contains(function), "{site}: {}", self.say());
        assert_eq!(culprit["group"]["wait_reason"], reason, "{}", self.say());
        assert_eq!(culprit["group"]["thread_names"][0]["name"], thread_names, "{}", self.say());
        let rate = culprit["growth_per_second"].as_f64().unwrap();
        assert!(per_second.contains(&rate), "{rate}/s: {}", self.say());
        assert!(culprit["group"]["count"].as_u64().unwrap() >= 20, "{}", self.say());
        self
    }

    /// Each thread keeps so many KiB, to a fifth.
    #[track_caller]
    fn keeps(&self, kib: f64) -> &Self {
        let each = self.document["culprits"][0]["bytes_per_member"].as_f64().unwrap() / 1024.0;
        assert!((0.8 * kib..1.2 * kib).contains(&each), "{each} KiB, not {kib}: {}", self.say());
        self
    }

    /// Memory grows and no thread is to blame; a function that first touched it is in the stack.
    #[track_caller]
    fn grows(&self, function: &str) -> &Self {
        assert_eq!(self.document["verdict"], "growing", "{}", self.say());
        let sites = self.document["growth_sites"].as_array().unwrap();
        let named = sites.iter().take(3).any(|site| {
            site["frames"]
                .as_array()
                .unwrap()
                .iter()
                .any(|frame| frame["function"].as_str().unwrap_or_default().contains(function))
        });
        assert!(named, "no {function}: {}", self.say());
        self
    }

    #[track_caller]
    fn is_healthy(&self) -> &Self {
        assert_eq!(self.document["verdict"], "stable", "{}", self.say());
        self
    }
}

#[test]
#[ignore = "needs root"]
fn root_native_languages_pile_up_grow_and_are_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let cpp = directory.path().join("piles");
    build(
        Command::new("g++")
            .args(["-std=c++20", "-O2", "-g", "-pthread", "-o"])
            .arg(&cpp)
            .arg(source("cpp/piles.cpp")),
    );
    // Beside the workspace's own, so that it is built once and not with each run.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("piles");
    build(
        Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(source("rust/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    );
    let rust = target.join("debug/piles");
    let start = |name, program: &Path, mode: &str| watch(name, Command::new(program).arg(mode));
    let watched = [
        start("C++ in a catch block", &cpp, "catching"),
        start("C++ in a coroutine", &cpp, "coroutines"),
        start("C++ that grows", &cpp, "grow"),
        start("healthy C++", &cpp, "healthy"),
        start("Rust at a std mutex", &rust, "mutex"),
        start("Rust at a parking_lot mutex", &rust, "parked"),
        start("Rust in tokio's blocking pool", &rust, "blocking"),
        start("Rust that grows", &rust, "grow"),
        start("healthy Rust", &rust, "healthy"),
    ];
    let [catching, coroutines, cpp_grows, cpp_healthy, mutex, parked, blocking, rust_grows, rust_healthy] =
        watched.map(Watched::end);
    // 64 KiB of its own, and 8 KiB of stack with what an arena takes.
    let rate = 6.0..11.0;
    catching.runs_on("c++").leaks("ask_again", "condition wait", "piles", rate.clone()).keeps(73.0);
    coroutines.leaks("fetch_price", "future wait", "piles", rate.clone()).keeps(73.0);
    cpp_grows.grows("remember");
    cpp_healthy.is_healthy();
    mutex.runs_on("rust").leaks("update_stock", "mutex lock", "stock-#", rate.clone()).keeps(73.0);
    parked.leaks("update_prices", "mutex lock", "prices-#", rate.clone()).keeps(73.0);
    blocking.leaks("await_message", "channel receive", "tokio-rt-worker", rate).keeps(73.0);
    rust_grows.grows("remember");
    rust_healthy.is_healthy();
}

#[test]
#[ignore = "needs root"]
fn root_virtual_machines_pile_up_grow_and_are_healthy() {
    let directory = tempfile::tempdir().unwrap();
    build(Command::new("javac").arg("-d").arg(directory.path()).arg(source("java/Piles.java")));
    let java = |name, mode: &str| {
        // A small heap, so that what is remembered shows at once.
        let flags = ["-Xms8m", "-Xmn4m", "-Xmx256m", "-XX:+UseSerialGC", "-cp"];
        watch(name, Command::new("java").args(flags).arg(directory.path()).args(["Piles", mode]))
    };
    let script = |name, program: &str, path: &str, mode: &str| {
        watch(name, Command::new(program).arg(source(path)).arg(mode))
    };
    let watched = [
        java("Java at a lock", "leak"),
        java("Java that grows", "grow"),
        java("healthy Java", "healthy"),
        script("Python at an event", "python3", "python/piles.py", "leak"),
        script("Python that grows", "python3", "python/piles.py", "grow"),
        script("healthy Python", "python3", "python/piles.py", "healthy"),
        script("Node in Atomics.wait", "node", "node/piles.js", "leak"),
        script("Node that grows", "node", "node/piles.js", "grow"),
        script("healthy Node", "node", "node/piles.js", "healthy"),
    ];
    let [
        java,
        java_grows,
        java_healthy,
        python,
        python_grows,
        python_healthy,
        node,
        node_grows,
        node_healthy,
    ] = watched.map(Watched::end);
    java.runs_on("java").leaks("", "thread park", "orders-#", 5.0..11.0);
    // The machine's heap is the machine's: what is said is that it grows.
    java_grows.grows("");
    java_healthy.is_healthy();
    // CPython 3.11 does not tell the kernel the names of its threads.
    python.runs_on("python").leaks("", "lock wait", "python3", 6.0..11.0).keeps(76.0);
    python_grows.grows("Py");
    python_healthy.is_healthy();
    node.runs_on("node").leaks("", "condition wait", "node", 0.8..2.5);
    node_grows.grows("");
    node_healthy.is_healthy();
    let version = &python.document["target"]["runtime"]["version"];
    assert!(version.as_str().unwrap().starts_with("3."), "{version}");
}
