//! The daemon with real targets: waits for them, follows them over restarts, and is held up by none of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::programs::c::compile_as;
use crate::programs::daemon::{Daemon, until};
use crate::support::observer::{Victim, observer, run};

/// A C program under a name that no other process has.
fn build(source: &str, directory: &Path, name: &str) -> PathBuf {
    let program = directory.join(name);
    compile_as(&program, "cc", source, &["-O2", "-pthread"]);
    program
}

/// It sleeps until its standard input is closed.
fn start(program: &Path) -> Victim {
    Victim::start(Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()))
}

#[test]
#[ignore = "needs root"]
fn waits_for_a_target_follows_it_over_a_restart_and_forgets_it() {
    let directory = tempfile::tempdir().unwrap();
    let program = build("sleepers", directory.path(), "obs-d-restart");
    let config = directory.path().join("observer.toml");
    fs::write(&config, "[[target]]\nexe='obs-d-restart'\n[sampling]\nforget_after='8s'\ninterval='500ms'\n")
        .unwrap();
    let daemon = Daemon::start(&["--config", config.to_str().unwrap()]);
    until("it waits", || {
        daemon.get("/api/v1/targets").contains("no process with exe obs-d-restart").then_some(())
    });
    assert_eq!(daemon.get("/readyz").lines().count(), 1);

    let up = || daemon.metric("observer_target_up{target=\"obs-d-restart\"}");
    let first = start(&program);
    until("it is observed", || up().filter(|up| *up == 1.0));
    let pid = format!("pid=\"{}\"", first.pid());
    assert!(
        daemon.get("/metrics").lines().any(|l| l.starts_with("observer_target_info") && l.contains(&pid))
    );
    drop(first);
    until("it is down and still spoken of", || up().filter(|up| *up == 0.0));

    let second = start(&program);
    until("its heir has its name", || up().filter(|up| *up == 1.0));
    let targets = daemon.json("/api/v1/targets");
    assert_eq!(targets["targets"].as_array().unwrap().len(), 1, "{targets}");
    assert_eq!(targets["targets"][0]["restarts"], 1, "{targets}");
    assert_eq!(targets["targets"][0]["target"]["pid"], second.pid(), "{targets}");
    drop(second);
    until("it is forgotten", || daemon.metric("observer_target_up").is_none().then_some(()));
    until("it is forgotten", || up().is_none().then_some(()));
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
}

/// As a container's first process: it is the runtime's own for a moment, and then the service.
#[test]
#[ignore = "needs root"]
fn what_executes_something_else_is_called_after_that() {
    let directory = tempfile::tempdir().unwrap();
    let before = directory.path().join("obs-d-before");
    fs::copy("/bin/sh", &before).unwrap();
    let after = build("sleepers", directory.path(), "obs-d-after");
    let script = format!("read go; exec {} obs-d-marker", after.display());
    let mut process =
        Victim::start(Command::new(before).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()));
    let daemon = Daemon::start(&["--cmdline", "obs-d-marker", "--interval", "500ms"]);
    let up = |name: &str| daemon.metric(&format!("observer_target_up{{target=\"{name}\"}}"));
    until("it is called after the shell", || up("obs-d-before"));
    process.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    until("it is called after what it executes now", || up("obs-d-after").filter(|up| *up == 1.0));
    assert_eq!(up("obs-d-before"), None, "nobody misses the shell");
    let targets = daemon.json("/api/v1/targets");
    assert_eq!(targets["targets"][0]["restarts"], 0, "{targets}");
}

#[test]
#[ignore = "needs root"]
fn a_target_that_hangs_its_readers_holds_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let hanger = build("hanger", directory.path(), "obs-d-hanger");
    let healthy = build("sleepers", directory.path(), "obs-d-healthy");
    let mut hanger = Victim::start(Command::new(hanger).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(hanger.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "hangs\n");
    let healthy = start(&healthy);
    let daemon = Daemon::start(&["--exe", "obs-d-*", "--interval", "500ms"]);
    let sampled = || daemon.metric("observer_last_sample_timestamp_seconds{target=\"obs-d-healthy\"}");
    let begun = until("the healthy one is sampled", sampled);
    // The fault that this is about: whoever reads the hanger does not come back.
    let reader = |pid: u32| {
        let stacks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(|entry| {
            let task = entry.ok()?.path();
            let name = fs::read_to_string(task.join("comm")).ok()?;
            let stack = fs::read_to_string(task.join("stack")).unwrap_or_default();
            (name.starts_with("target") && stack.contains("handle_userfault")).then_some(())
        });
        stacks.count()
    };
    until("a reader hangs", || (reader(daemon.pid()) == 1).then_some(()));
    until("the healthy one is sampled on", || sampled().filter(|at| *at > begun + 5.0));
    assert_eq!(reader(daemon.pid()), 1);
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("left behind"), "{log}");
    drop(healthy);
}

#[test]
#[ignore = "needs root"]
fn a_reload_takes_what_is_right_and_refuses_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let one = start(&build("sleepers", directory.path(), "obs-d-one"));
    let two = start(&build("sleepers", directory.path(), "obs-d-two"));
    let config = directory.path().join("observer.toml");
    fs::write(&config, "[[target]]\nexe='obs-d-one'\n").unwrap();
    let daemon = Daemon::start(&["--config", config.to_str().unwrap()]);
    let up = |name: &str| daemon.metric(&format!("observer_target_up{{target=\"{name}\"}}"));
    until("the one is observed", || up("obs-d-one"));
    fs::write(&config, "[[target]]\nexe='obs-d-two'\n[web]\nmax_requests=7\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    until("what a reload cannot do is said", || {
        daemon.log().contains("web.max_requests changes only when").then_some(())
    });
    until("the other is observed", || up("obs-d-two"));
    until("the one no longer", || up("obs-d-one").is_none().then_some(()));
    fs::write(&config, "[[target]]\nexe=''\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    until("the wrong one is refused", || {
        daemon.log().contains("stays as it was: target: exe is empty").then_some(())
    });
    assert_eq!(up("obs-d-two"), Some(1.0));
    drop((one, two));
}

#[test]
#[ignore = "needs root"]
fn fifty_targets_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let program = build("sleepers", directory.path(), "obs-d-many");
    let targets: Vec<Victim> = (0..50).map(|_| start(&program)).collect();
    let daemon = Daemon::start(&["--exe", "obs-d-many"]);
    let up = || {
        daemon
            .get("/metrics")
            .lines()
            .filter(|l| l.starts_with("observer_target_up") && l.ends_with(" 1"))
            .count()
    };
    until("all are observed", || (up() == targets.len()).then_some(()));
    assert!(daemon.get("/metrics").contains("observer_target_up{target=\"obs-d-many-50\"} 1"));
    until("each has a verdict", || {
        let targets = daemon.json("/api/v1/targets");
        let all = targets["targets"].as_array().unwrap();
        all.iter().all(|target| target["verdict"] == "stable").then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes < 128 << 10, "{resident}");
    drop(targets);
}

#[test]
#[ignore = "needs root"]
fn a_port_that_is_taken_is_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run(&mut observer(&["run", "--comm", "x", "--listen", &address]));
    ran.refused(1, &["cannot listen on", &address, "--listen"]);
}

#[test]
#[ignore = "needs root"]
fn keeps_no_capability_that_it_does_not_need() {
    let directory = tempfile::tempdir().unwrap();
    let target = start(&build("sleepers", directory.path(), "obs-d-caps"));
    let daemon = Daemon::start(&["--exe", "obs-d-caps"]);
    until("it is observed", || daemon.metric("observer_target_up{target=\"obs-d-caps\"}"));
    // BPF, PERFMON, SYS_PTRACE, CHECKPOINT_RESTORE, DAC_READ_SEARCH.
    let kept: u64 = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 40 | 1 << 2;
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let mask = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
            let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
            assert_eq!(mask & !kept, 0, "{set} {mask:x}");
            assert_ne!(mask & 1 << 19, 0, "{set} {mask:x}");
        }
        threads += 1;
    }
    assert!(threads > 4);
    // What is left is enough to attach to another.
    let another = start(&build("sleepers", directory.path(), "obs-d-caps"));
    until("another is observed", || daemon.metric("observer_target_up{target=\"obs-d-caps-2\"}"));
    let degraded =
        |text: &str| text.lines().any(|line| line.starts_with("observer_degraded{feature=\"ebpf\""));
    assert!(!degraded(&daemon.get("/metrics")), "{}", daemon.get("/metrics"));
    drop((target, another));
}

#[test]
#[ignore = "needs root"]
fn history_goes_on_where_it_was_after_a_restart_of_observer() {
    let directory = tempfile::tempdir().unwrap();
    let target = start(&build("sleepers", directory.path(), "obs-d-past"));
    let file = directory.path().join("history.redb");
    let arguments = ["--exe", "obs-d-past", "--interval", "500ms", "--history", file.to_str().unwrap()];
    let first_moment = |daemon: &Daemon| {
        let history = daemon.json("/api/v1/targets/obs-d-past/history");
        history["at"].as_array().and_then(|at| at.first().cloned()).map(|at| at.to_string())
    };
    let daemon = Daemon::start(&arguments);
    let before = until("there is a history", || first_moment(&daemon));
    let two =
        run(&mut observer(&["run", "--listen", "127.0.0.1:0", "--comm", "x", "--history", arguments[5]]));
    two.refused(1, &["another observer has it open", arguments[5]]);
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("may not be on disk"), "{log}");

    let daemon = Daemon::start(&arguments);
    until("it is observed again", || daemon.metric("observer_target_up{target=\"obs-d-past\"}"));
    let after = until("the old history is there", || first_moment(&daemon).filter(|after| *after == before));
    assert_eq!(after, before);
    drop(target);
}
