//! The commands as their user types them, against processes that leak, grow, exit, execute another program and live
//! in a PID namespace of their own. What takes a window of time runs side by side.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::programs::go::{Build, Program, toolchains};
use crate::support::observer::{Ran, Victim, observer, run};

const WINDOW: &str = "26s";

/// A target whose standard input and output are ours.
struct Target {
    victim: Victim,
    output: BufReader<ChildStdout>,
}

impl Target {
    fn start(command: &mut Command) -> Self {
        let mut victim = Victim::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let output = BufReader::new(victim.0.stdout.take().unwrap());
        Self { victim, output }
    }

    fn pid(&self) -> String {
        self.victim.pid().to_string()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_ne!(line, "", "the target has ended");
        line
    }

    fn say(&mut self, line: &str) {
        writeln!(self.victim.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// How many goroutines the leaker has started, and in how many seconds.
    fn started(&mut self) -> (f64, f64) {
        self.say("?");
        let line = self.line();
        let mut words = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    }
}

fn go_program(root: &Path, name: &str, build: Build, directory: &Path) -> PathBuf {
    let version = root.file_name().unwrap();
    let directory = directory.join(version);
    fs::create_dir_all(&directory).unwrap();
    Program::build(root, name, build, &directory);
    directory.join(name)
}

/// The toolchain with this minor version.
fn toolchain(version: &str) -> PathBuf {
    let roots = toolchains();
    let found = roots.iter().find(|root| {
        fs::read_to_string(root.join("VERSION")).is_ok_and(|text| text.starts_with(&format!("go{version}.")))
    });
    found.unwrap_or_else(|| panic!("no Go {version} in {roots:?}; install it: cargo xtask setup")).clone()
}

fn c_program(name: &str, directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../xtask/targets/c/{name}/{name}.c"));
    let path = directory.join(name);
    let status = Command::new("gcc").args(["-O1", "-g", "-pthread", "-o"]).arg(&path).arg(source).status();
    assert!(status.expect("gcc does not run: cargo xtask setup").success());
    path
}

fn begin(arguments: &[&str]) -> Child {
    observer(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

/// Waits until the observer says that it has attached, and goes on reading for it.
fn attached(child: &mut Child) -> std::thread::JoinHandle<String> {
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    errors.read_line(&mut first).unwrap();
    assert!(first.starts_with("observing "), "{first}");
    std::thread::spawn(move || {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
        first + &rest
    })
}

#[track_caller]
fn document(ran: &Ran, schema: &str) -> Value {
    let document: Value =
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out));
    assert_eq!(document["schema"], schema);
    document
}

#[track_caller]
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "`{field}` is not in {value:#}");
    }
}

/// Within this share of the truth.
#[track_caller]
fn near(what: &str, said: &Value, truth: f64, share: f64) {
    let said = said.as_f64().unwrap_or_else(|| panic!("{what} is no number: {said}"));
    assert!((said - truth).abs() <= share * truth, "{what}: {said} said, {truth} true");
}

#[test]
#[ignore = "needs root"]
fn root_verdicts_on_leaking_growing_and_healthy_programs() {
    let directory = tempfile::tempdir().unwrap();
    let old = go_program(&toolchain("1.21"), "leaker", Build::Plain, directory.path());
    let new = go_program(&toolchain("1.27"), "leaker", Build::Plain, directory.path());
    let mut leakers: Vec<Target> =
        [&old, &new].into_iter().map(|path| Target::start(Command::new(path).arg("leak"))).collect();
    let mut healthy = Target::start(Command::new(&new).arg("healthy"));
    let mut piler = Target::start(&mut Command::new(c_program("piler", directory.path())));
    let mut grower = Target::start(&mut Command::new(c_program("grower", directory.path())));
    let mut in_c = Target::start(&mut Command::new(go_program(
        &toolchain("1.27"),
        "cgo_leaker",
        Build::Cgo,
        directory.path(),
    )));
    for target in leakers.iter_mut().chain([&mut healthy, &mut piler, &mut in_c]) {
        assert_eq!(target.line(), "ready\n");
    }
    let attach = |target: &Target, format: &str| {
        begin(&["attach", &target.pid(), "--duration", WINDOW, "--fail-on", "leak", "--format", format])
    };
    let leaking: Vec<Child> = leakers.iter().map(|leaker| attach(leaker, "json")).collect();
    let (calm, piling, growing) = (attach(&healthy, "text"), attach(&piler, "json"), attach(&grower, "json"));
    let outside = attach(&in_c, "json");
    let before: Vec<(f64, f64)> = leakers.iter_mut().map(Target::started).collect();
    // It grows for longer than it is watched.
    for _ in 0..170 {
        grower.say("large 1");
        assert_eq!(grower.line(), "ok\n");
        std::thread::sleep(Duration::from_millis(180));
    }
    for ((child, leaker), before) in leaking.into_iter().zip(&mut leakers).zip(before) {
        let ran = end(child);
        let after = leaker.started();
        assert_eq!(ran.code, Some(3), "{}{}", ran.err, ran.out);
        let diagnosis = document(&ran, "observer.diagnosis/1");
        is_the_leak(&diagnosis, (after.0 - before.0) / (after.1 - before.1));
    }
    let ran = end(calm);
    assert_eq!(ran.code, Some(0), "{}{}", ran.err, ran.out);
    assert!(!ran.out.contains("LEAK"), "{}", ran.out);

    let ran = end(piling);
    assert_eq!(ran.code, Some(3), "{}{}", ran.err, ran.out);
    let diagnosis = document(&ran, "observer.diagnosis/1");
    let culprits = diagnosis["culprits"].as_array().unwrap();
    assert_eq!(culprits.len(), 1, "{diagnosis:#}");
    assert_eq!(culprits[0]["group"]["kind"], "thread");
    assert_eq!(culprits[0]["site"]["function"], "wait_for_the_gate");

    let ran = end(growing);
    assert_eq!(ran.code, Some(0), "{}{}", ran.err, ran.out);
    let diagnosis = document(&ran, "observer.diagnosis/1");
    assert_eq!(diagnosis["verdict"], "growing", "{diagnosis:#}");
    let site = &diagnosis["growth_sites"][0];
    assert!(
        site["frames"].as_array().unwrap().iter().any(|frame| frame["function"] == "leak_large"),
        "{site:#}"
    );
    assert!(diagnosis["second_sentence"].as_str().unwrap().contains("leak_large"), "{diagnosis:#}");

    let ran = end(outside);
    assert_eq!(ran.code, Some(0), "{}{}", ran.err, ran.out);
    let diagnosis = document(&ran, "observer.diagnosis/1");
    assert_eq!(diagnosis["verdict"], "growing", "{diagnosis:#}");
    assert_eq!(diagnosis["memory"]["live_basis"], "anonymous memory outside Go's heap and stacks");
    near("bytes a second", &diagnosis["memory"]["live_slope_bytes_per_second"], 50.0 * 32.0 * 1024.0, 0.25);
    assert!(diagnosis["second_sentence"].as_str().unwrap().contains("keep_in_c"), "{diagnosis:#}");
}

fn is_the_leak(diagnosis: &Value, per_second: f64) {
    has(diagnosis, &["target", "window_seconds", "samples", "verdict", "memory", "culprits", "growth_sites"]);
    has(diagnosis, &["deadlocks", "losses"]);
    has(&diagnosis["memory"], &["first_bytes", "last_bytes", "slope_bytes_per_second"]);
    assert_eq!(diagnosis["verdict"], "leak", "{diagnosis:#}");
    let culprits = diagnosis["culprits"].as_array().unwrap();
    assert_eq!(culprits.len(), 1, "{diagnosis:#}");
    let culprit = &culprits[0];
    has(
        culprit,
        &["group", "growth_per_second", "bytes_per_member", "share_of_growth", "confidence", "evidence"],
    );
    is_a_group(&culprit["group"]);
    assert_eq!(culprit["site"]["function"], "main.ask");
    let source = include_str!("../../../xtask/targets/go/leaker/main.go");
    let line = 1 + source.lines().position(|line| line.contains("answers <- a")).unwrap();
    assert_eq!(culprit["site"]["line"], line);
    assert_eq!(culprit["group"]["wait_reason"], "chan send");
    near("goroutines a second", &culprit["growth_per_second"], per_second, 0.1);
    // The buffer, and a stack of the smallest size.
    near("bytes each", &culprit["bytes_per_member"], f64::from((32 << 10) + 2048), 0.25);
}

fn is_a_group(group: &Value) {
    has(group, &["id", "kind", "state", "wait_reason", "count", "oldest_wait_seconds", "stack_bytes"]);
    has(group, &["retained_bytes", "frames", "created_by", "waits_on"]);
    has(&group["frames"][0], &["function", "file", "line", "module", "address", "inlined"]);
}

#[test]
#[ignore = "needs root"]
fn root_snapshot_in_each_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = go_program(&toolchain("1.27"), "leaker", Build::Plain, directory.path());
    let mut leaker = Target::start(Command::new(path).arg("leak"));
    assert_eq!(leaker.line(), "ready\n");
    while leaker.started().0 < 20.0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let snapshot = |format: &str| run(&mut observer(&["snapshot", &leaker.pid(), "--format", format]));
    let ran = snapshot("json");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let document = document(&ran, "observer.snapshot/1");
    has(&document, &["taken_at", "took_seconds", "target", "memory", "groups", "losses"]);
    has(&document["target"], &["pid", "comm", "exe", "runtime", "started_at"]);
    has(&document["memory"], &["resident_bytes", "anonymous_bytes", "limit_bytes", "go"]);
    has(&document["memory"]["go"], &["heap_in_use_bytes", "stack_in_use_bytes"]);
    assert_eq!(document["target"]["runtime"]["name"], "go");
    let groups = document["groups"].as_array().unwrap();
    groups.iter().for_each(is_a_group);
    let group = groups.iter().find(|group| group["frames"][0]["function"] == "main.ask").unwrap();
    assert!(group["count"].as_u64().unwrap() >= 20, "{group:#}");

    let folded = snapshot("folded");
    assert!(
        folded.out.lines().any(|line| line.contains("main.serve") || line.contains("main.ask")),
        "{}",
        folded.out
    );
    assert!(snapshot("svg").out.contains("main.ask"));
    let text = snapshot("text");
    assert_eq!((text.code, text.err.as_str()), (Some(0), ""));
    assert!(text.out.contains("main.ask") && text.out.contains("chan send"), "{}", text.out);

    // `observer snapshot PID | head -1`
    let mut child = begin(&["snapshot", &leaker.pid(), "--format", "json"]);
    drop(child.stdout.take());
    let ran = end(child);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

/// A process that exits, one that executes another program, signals, and a terminal: side by side too.
#[test]
#[ignore = "needs root"]
fn root_windows_that_end_early() {
    // As under a parent that waits for signals itself: the mask is inherited.
    let blocked: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    blocked.thread_block().unwrap();
    let sleep = || Target::start(Command::new("/bin/sleep").arg("120"));
    let (mut dying, interrupted, terminated, shown) = (sleep(), sleep(), sleep(), sleep());
    let mut changing = Target::start(Command::new("/bin/sh").args(["-c", "read line; exec /bin/sleep 120"]));

    // None of them comes to the end of this by itself, however slow the machine is.
    let watch = |target: &Target| {
        let mut child = begin(&["attach", &target.pid(), "--duration", "300s"]);
        let errors = attached(&mut child);
        (child, errors)
    };
    let (death, _) = watch(&dying);
    let (interrupt, interrupt_errors) = watch(&interrupted);
    let (terminate, _) = watch(&terminated);
    let (change, _) = watch(&changing);
    let terminal = Command::new("script")
        // A terminal that nobody gave a size has none.
        .args([
            "-qec",
            &format!(
                "stty rows 24 cols 80; '{}' attach {} --duration 3s",
                env!("CARGO_BIN_EXE_observer"),
                shown.pid()
            ),
        ])
        .arg("/dev/null")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script does not run: install util-linux (bsdutils)");
    std::thread::sleep(Duration::from_secs(3));
    changing.say("");
    let comm = format!("/proc/{}/comm", changing.pid());
    let executed = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n")
    });
    assert!(executed, "the shell does not execute sleep: nothing to be noticed");
    dying.victim.0.kill().unwrap();
    // Nobody reaps it before it is dropped: it stays a zombie, and has exited all the same.
    let end = |child: &Child, signal: Signal| {
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    };
    end(&interrupt, Signal::SIGINT);
    end(&terminate, Signal::SIGTERM);
    let out = |child: Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = out(death);
    // On a slow machine they have been watched for long enough to be judged.
    let judged = |page: &str| page.contains("NOT ENOUGH DATA") || page.contains("STABLE");
    assert!(page.contains(", exited\n") && judged(&page), "{page}");
    assert!(page.contains("The process exited after") || page.contains("STABLE"), "{page}");
    for page in [out(interrupt), out(terminate)] {
        assert!(judged(&page), "{page}");
    }
    assert_eq!(interrupt_errors.join().unwrap().lines().count(), 1, "no more than that it observes");
    // It is looked at every second.
    std::thread::sleep(Duration::from_secs(3));
    end(&change, Signal::SIGINT);
    let page = out(change);
    assert!(page.starts_with("sleep (pid") && page.contains("the process was replaced once"), "{page}");
    let screen = out(terminal);
    // The full-screen view is a screen of its own; the page is on the one that stays.
    let (view, page) = screen.rsplit_once("\x1b[?1049l").expect("the view is left");
    assert!(view.contains("\x1b[?1049h") && view.contains("sleep"), "{view:?}");
    assert!(page.contains("sleep (pid") && judged(page), "{page:?}");
}

#[test]
#[ignore = "needs root"]
fn root_processes_of_others_and_capabilities_that_are_missing() {
    // A directory of root's own may be closed to nobody.
    let copy = Path::new("/tmp").join(format!("observer-of-nobody-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_observer"), &copy).unwrap();
    let target = Target::start(Command::new("/bin/sleep").arg("60"));
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        run(command.args(arguments).env("RUST_BACKTRACE", "1").current_dir("/").uid(65534).gid(65534))
    };
    let refused =
        [as_nobody(&["snapshot", &target.pid()]), as_nobody(&["attach", &target.pid(), "--duration", "1s"])];
    let doctor = as_nobody(&["doctor"]);
    let own = Victim::start(Command::new("/bin/sleep").arg("60").uid(65534).gid(65534));
    let snapshot = as_nobody(&["snapshot", &own.pid().to_string()]);
    fs::remove_file(&copy).unwrap();
    for ran in refused {
        ran.refused(1, &[&target.pid(), "root (uid 0)", "uid 65534", "CAP_SYS_PTRACE"]);
    }
    assert_eq!(doctor.code, Some(1), "{}", doctor.out);
    for capability in ["CAP_SYS_PTRACE", "CAP_BPF", "CAP_PERFMON"] {
        assert!(doctor.out.contains(&format!("degraded  {capability}")), "{}", doctor.out);
    }
    assert!(doctor.out.contains("remedy: run as root"), "{}", doctor.out);
    // What is one's own can be looked at without any capability, and the page says what that costs.
    assert_eq!(snapshot.code, Some(0), "{}", snapshot.err);
    assert!(snapshot.out.contains("degraded") && snapshot.out.contains("CAP_BPF"), "{}", snapshot.out);
}

#[test]
#[ignore = "needs root"]
fn root_pid_namespaces() {
    let directory = tempfile::tempdir().unwrap();
    let go = go_program(&toolchain("1.27"), "leaker", Build::Plain, directory.path());
    let sleepers = directory.path().join("sleepers");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/c/sleepers/sleepers.c");
    let built = Command::new("gcc").args(["-O1", "-g", "-pthread", "-o"]).arg(&sleepers).arg(source).status();
    assert!(built.expect("gcc does not run: cargo xtask setup").success());
    // Both inside: pids are those of the namespace, and the kernel's census finds the threads by them.
    let script = format!(
        "'{go}' leak </dev/null >/dev/null & a=$!; \
         (echo mutex 20; exec sleep 60) | '{sleepers}' >/dev/null & b=$!; sleep 2; \
         '{observer}' snapshot $a --format json; '{observer}' snapshot $b --format json; \
         '{observer}' attach $b --duration 2s --format json 2>/dev/null; kill $a $b",
        go = go.display(),
        sleepers = sleepers.display(),
        observer = env!("CARGO_BIN_EXE_observer"),
    );
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child", "/bin/sh", "-c"];
    let ran = run(Command::new("unshare").args(unshare).arg(&script));
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(&ran.out).into_iter().map(|value| value.unwrap()).collect();
    let [goroutines, threads, attached] = &documents[..] else { panic!("{}{}", ran.out, ran.err) };
    assert!(goroutines["target"]["pid"].as_u64().unwrap() < 100, "{goroutines:#}");
    assert!(count(goroutines, "main.ask") > 0, "{goroutines:#}");
    assert!(count(threads, "take_the_mutex") >= 20, "{threads:#}");
    for document in &documents {
        assert_eq!(document["degraded"], Value::Array(Vec::new()), "{document:#}");
    }
    assert_eq!(attached["target"]["comm"], "sleepers");

    // The target inside, the observer outside: it says both pids.
    let script = format!("'{}' leak & wait", go.display());
    let mut inside = Target::start(Command::new("unshare").args(unshare).arg(&script));
    assert_eq!(inside.line(), "ready\n");
    std::thread::sleep(Duration::from_millis(300));
    let pid = descendant(inside.victim.pid(), "leaker").expect("the target inside").to_string();
    let ran = run(&mut observer(&["snapshot", &pid, "--format", "json"]));
    let document = document(&ran, "observer.snapshot/1");
    assert_eq!(document["target"]["pid"].to_string(), pid);
    assert!(document["target"]["namespace_pid"].as_u64().unwrap() < 100, "{document:#}");
    assert!(count(&document, "main.ask") > 0, "{document:#}");
    assert_eq!(document["degraded"], Value::Array(Vec::new()), "{document:#}");
}

/// Members of the groups that have this function in their stack.
fn count(document: &Value, function: &str) -> u64 {
    let groups = document["groups"].as_array().unwrap();
    groups
        .iter()
        .filter(|group| group["frames"].as_array().unwrap().iter().any(|frame| frame["function"] == function))
        .map(|group| group["count"].as_u64().unwrap())
        .sum()
}

fn descendant(pid: u32, name: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find_map(|child| {
        let comm = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        if comm.trim() == name { Some(child) } else { descendant(child, name) }
    })
}
