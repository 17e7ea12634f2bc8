//! `attach` in a real terminal, on the demo's service: the view is there, keys work, the end is the diagnosis on a
//! terminal as it was; what was recorded replays to the same verdict.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use observer::diagnose::{Diagnosis, Verdict};

use crate::programs::go::toolchains;
use crate::support::observer::{Victim, observer, run};

const LONG: Duration = Duration::from_secs(90);

/// The demo's service under load.
struct Checkout {
    _directory: tempfile::TempDir,
    service: Victim,
    _load: Victim,
}

impl Checkout {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = build(directory.path());
        let mut service = Victim::start(
            Command::new(&program)
                .args(["serve", "--for", "600s"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        );
        let mut line = String::new();
        BufReader::new(service.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (_, address) = line.trim().rsplit_once("listening on ").expect("its address");
        let load = Victim::start(
            Command::new(&program)
                .args(["load", "--target", address, "--rate", "40", "--for", "600s"])
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        );
        Self { _directory: directory, service, _load: load }
    }

    fn pid(&self) -> String {
        self.service.pid().to_string()
    }
}

fn build(directory: &Path) -> PathBuf {
    let go = toolchains().pop().unwrap();
    let program = directory.join("checkout");
    let status = Command::new(go.join("bin/go"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/go/checkout"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg("./cmd/checkout")
        .env("GOROOT", &go)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .status()
        .expect("go does not run: cargo xtask setup");
    assert!(status.success(), "building the demo's service: {status}");
    program
}

/// A terminal of 100 columns and 30 lines, with a shell in it.
struct Tmux {
    directory: tempfile::TempDir,
}

impl Tmux {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tmux = Self { directory };
        let shell = "env -u NO_COLOR PS1='$ ' TERM=screen-256color sh";
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", shell]);
        tmux
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.directory.path().join("socket"))
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .expect("tmux does not run; install it: cargo xtask setup");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    fn say(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// With what has scrolled away.
    fn all(&self) -> String {
        self.run(&["capture-pane", "-p", "-S", "-500"])
    }

    #[track_caller]
    fn wait_for(&self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + LONG;
        loop {
            let screen = self.all();
            if seen(&screen) {
                return screen;
            }
            assert!(Instant::now() < until, "{what} is not on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn alternate(&self) -> bool {
        self.run(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// The terminal is as a shell wants it: its own screen, a cursor, an echo.
    #[track_caller]
    fn is_restored(&self) {
        assert!(!self.alternate(), "the other screen is still shown");
        assert_eq!(self.run(&["display-message", "-p", "#{cursor_flag}"]).trim(), "1", "no cursor");
        self.say("stty -a | tr ';' '\\n' | grep -o -w -e '-echo' -e '-icanon' -e echo -e icanon | sort -u | tr '\\n' _; echo end");
        let screen = self.wait_for("the state of the terminal", |screen| screen.contains("_end"));
        assert!(screen.contains("echo_icanon_end"), "{screen}");
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(self.directory.path().join("socket"))
            .arg("kill-server")
            .status();
    }
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_observer")
}

#[test]
#[ignore = "needs root"]
fn the_view_shows_the_leak_and_ends_with_the_diagnosis() {
    let checkout = Checkout::start();
    let tmux = Tmux::start();
    let directory = tmux.directory.path();
    tmux.say(&format!(
        "{} attach {} --duration 10m --record r.jsonl --report r.html; echo exit=$?",
        program(),
        checkout.pid()
    ));
    let screen = tmux.wait_for("the verdict", |screen| screen.contains("LEAK"));
    assert!(tmux.alternate(), "{screen}");
    let culprit = |line: &str| line.starts_with(">!") && line.contains("quote.go:57");
    tmux.wait_for("the culprit's row", |screen| screen.lines().any(culprit));

    tmux.keys(&["Enter"]);
    let screen = tmux.wait_for("the stack", |screen| screen.contains("created by"));
    assert!(screen.contains("checkout.(*Quoter).fetch") && screen.contains("chan send"), "{screen}");
    tmux.keys(&["s"]);
    tmux.wait_for("the other order", |screen| screen.contains("by count"));
    tmux.keys(&["/"]);
    tmux.run(&["send-keys", "-l", "pool.go"]);
    tmux.wait_for("the filter", |screen| screen.contains("with `pool.go`"));
    // Seen before the next key: an escape with a letter behind it is another key.
    tmux.keys(&["Escape"]);
    tmux.wait_for("all groups", |screen| !screen.contains("pool.go`"));
    tmux.keys(&["p"]);
    tmux.wait_for("the pause", |screen| screen.contains("PAUSED"));
    tmux.keys(&["w"]);
    tmux.wait_for("where it was written", |screen| screen.contains("wrote "));
    tmux.keys(&["?"]);
    tmux.wait_for("the help", |screen| screen.contains("any key closes this"));
    tmux.keys(&["x", "p"]);
    tmux.wait_for("the view that goes on", |screen| !screen.contains("PAUSED"));
    for (width, height) in [("40", "10"), ("160", "50"), ("80", "24")] {
        tmux.run(&["resize-window", "-x", width, "-y", height]);
        tmux.wait_for("the view", |screen| screen.contains("LEAK") && screen.contains("q end"));
    }

    tmux.keys(&["q"]);
    let screen = tmux.wait_for("the end", |screen| screen.contains("exit=0"));
    for words in ["LEAK", "blocked at", "quote.go:57", "because", "confidence"] {
        assert!(screen.contains(words), "`{words}` is not in\n{screen}");
    }
    tmux.is_restored();

    let pid = checkout.pid();
    let written: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("observer-{pid}-")))
        .collect();
    let snapshot = fs::read_to_string(written.first().expect("the snapshot's file")).unwrap();
    assert!(snapshot.contains("observer.snapshot/1") && snapshot.contains("quote.go"));
    let page = fs::read_to_string(directory.join("r.html")).unwrap();
    assert!(page.contains("quote.go:57") && page.contains("</html>"));

    // The same samples, the same verdict, the same line.
    let recorded = directory.join("r.jsonl");
    let ran = run(&mut observer(&["replay", recorded.to_str().unwrap(), "--format", "json"]));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let replayed: Diagnosis = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(replayed.verdict, Verdict::Leak);
    let culprit = replayed.culprits.first().and_then(|culprit| culprit.site.clone()).expect("a culprit");
    assert_eq!((culprit.function.as_str(), culprit.line), ("checkout.(*Quoter).fetch", Some(57)));
    // Word for word, where lines were wrapped apart.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words(&screen).contains(&words(&replayed.second_sentence)),
        "{}\n{screen}",
        replayed.second_sentence
    );
}

#[test]
#[ignore = "needs root"]
fn the_terminal_is_restored_when_it_is_ended_from_outside() {
    let checkout = Checkout::start();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let tmux = Tmux::start();
        tmux.say(&format!(
            "echo $$; exec 3>pid; sh -c 'echo $$ >&3; exec {} attach {} --duration 10m'; echo exit=$?",
            program(),
            checkout.pid()
        ));
        tmux.wait_for("the view", |screen| screen.contains("resident"));
        let pid = fs::read_to_string(tmux.directory.path().join("pid")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), signal).unwrap();
        let screen = tmux.wait_for("the end", |screen| screen.contains("exit=0"));
        assert!(screen.contains("checkout (pid"), "{screen}");
        tmux.is_restored();
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_logged_does_not_tear_the_view_and_dumb_terminals_get_lines() {
    let checkout = Checkout::start();
    let tmux = Tmux::start();
    tmux.say(&format!("RUST_LOG=trace {} attach {} --duration 4s; echo exit=$?", program(), checkout.pid()));
    tmux.wait_for("the view", |screen| screen.contains("q end"));
    let torn = |line: &&str| line.contains("DEBUG") || line.contains("TRACE") || line.contains("INFO");
    let screen = tmux.screen();
    assert!(!tmux.alternate() || screen.lines().find(torn).is_none(), "{screen}");
    tmux.wait_for("the end", |screen| screen.contains("exit=0"));
    tmux.is_restored();

    for (environment, flag) in [("TERM=dumb", ""), ("TERM=screen", "--plain")] {
        tmux.run(&["clear-history"]);
        tmux.say("clear");
        tmux.say(&format!(
            "{environment} {} attach {} {flag} --duration 3s; echo over=$?",
            program(),
            checkout.pid()
        ));
        tmux.wait_for("the first line", |screen| screen.contains("observing checkout"));
        assert!(!tmux.alternate());
        tmux.wait_for("the end", |screen| screen.contains("over=0"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_is_full_stops_the_recording_and_nothing_else() {
    let checkout = Checkout::start();
    let arguments = [
        "attach",
        &checkout.pid(),
        "--duration",
        "6s",
        "--interval",
        "500ms",
        "--record",
        "/dev/full",
        "--force",
    ];
    let ran = run(&mut observer(&arguments));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.out.contains("checkout (pid") && ran.out.contains("samples"),
        "the diagnosis is there: {}",
        ran.out
    );
    assert_eq!(
        ran.err.matches("No space left").count(),
        2,
        "once when it happens, once at the end: {}",
        ran.err
    );
    let ran = run(&mut observer(&["attach", &checkout.pid(), "--record", "/dev/full"]));
    ran.refused(2, &["--record", "exists", "--force"]);
}
