//! What the program says when it is asked for something that cannot be: one line with the remedy, the right exit
//! code, nothing on standard output and no backtrace.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::observer::{Ran, Victim, observer, run};

#[test]
fn pids_that_are_none() {
    run(&mut observer(&["snapshot", "4194304"])).refused(1, &["no process with pid 4194304", "NAME"]);
    for text in ["0", "-5", "4194305", "99999999999999999999", ""] {
        run(&mut observer(&["attach", text])).refused(1, &[&format!("`{text}`"), "1 to 4194304"]);
    }
}

#[test]
fn names_that_are_none_or_of_several() {
    run(&mut observer(&["attach", "no-such-name"])).refused(1, &["`no-such-name`", "ps -e"]);
    // What the user typed (or a script took from a process) does not steer the terminal.
    run(&mut observer(&["attach", "a\x1b[2J"])).refused(1, &["a\\u{1b}[2J"]);

    let directory = tempfile::tempdir().unwrap();
    let twin = directory.path().join("obs-test-twin");
    // No copy: a file that was just written is busy while another test forks.
    std::os::unix::fs::symlink("/bin/sleep", &twin).unwrap();
    let victims = [(); 2].map(|()| Victim::start(Command::new(&twin).arg("60")));
    let ran = run(&mut observer(&["snapshot", "obs-test-twin"]));
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.out, "");
    assert!(ran.err.contains("2 processes are named `obs-test-twin`"), "{}", ran.err);
    for victim in &victims {
        assert!(ran.err.contains(&format!("{}  ", victim.pid())), "{}", ran.err);
    }
    assert_eq!(ran.err.lines().count(), 3, "{}", ran.err);
}

#[test]
fn what_is_no_process_to_observe() {
    let tid = fs::read_link("/proc/thread-self").unwrap();
    let tid = tid.file_name().unwrap().to_str().unwrap();
    let me = std::process::id().to_string();
    assert_ne!(tid, me, "a test runs in a thread of its own");
    run(&mut observer(&["attach", tid])).refused(1, &["is a thread of process", &me]);

    let mut zombie = Victim::start(&mut Command::new("/bin/true"));
    let stat = format!("/proc/{}/stat", zombie.pid());
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    run(&mut observer(&["attach", &zombie.pid().to_string()])).refused(1, &["has exited", "parent"]);
    zombie.0.wait().unwrap();

    let myself = format!("exec '{}' snapshot $$", env!("CARGO_BIN_EXE_observer"));
    run(Command::new("/bin/sh").args(["-c", &myself])).refused(1, &["is observer itself"]);

    // In a PID namespace of its own a container has none.
    if fs::read_to_string("/proc/2/stat").is_ok_and(|stat| stat.contains("(kthreadd)")) {
        run(&mut observer(&["snapshot", "2"])).refused(1, &["kernel thread"]);
    }
}

#[test]
fn arguments_that_are_wrong() {
    let wrong = |arguments: &[&str], words: &[&str]| {
        run(observer(&["attach", "1"]).args(arguments)).refused(2, words);
    };
    for duration in ["60", "abc", "", "1y"] {
        wrong(&["--duration", duration], &["--duration", "with a unit", "1m30s"]);
    }
    wrong(&["--duration=-5s"], &["--duration", "negative"]);
    wrong(&["--duration", "1s", "--interval", "2s"], &["--duration", "--interval", "shorter"]);
    wrong(&["--duration", "0s"], &["--duration"]);
    wrong(&["--interval", "1ms"], &["--interval", "100ms"]);
    wrong(&["--format", "xml"], &["--format", "text, json"]);
    wrong(&["--fail-on", "anything"], &["--fail-on", "leak"]);
    wrong(&["--exact", "--no-ebpf"], &["--exact", "--no-ebpf"]);
    wrong(&["--no-such-option"], &["--no-such-option", "--help"]);
    run(&mut observer(&["attach"])).refused(2, &["PID|NAME"]);
    run(&mut observer(&["detach", "1"])).refused(2, &["detach"]);
    run(&mut observer(&["snapshot", "1", "--format", "xml"])).refused(2, &["folded", "pprof"]);
}

#[test]
fn a_daemon_that_cannot_serve_says_why() {
    let web = ["--listen", "127.0.0.1:0", "--web.config.file", "/no-such/web.yml"];
    let mut daemon = observer(&["run", "--no-ebpf", "--pid", "4194303"]);
    run(daemon.args(web).env("RUST_LOG", "error")).refused(1, &["/no-such/web.yml", "No such file"]);
}

#[test]
fn without_a_command_it_explains_itself() {
    let ran = run(&mut observer(&[]));
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    for command in ["attach", "snapshot", "doctor"] {
        assert!(ran.err.contains(command), "{}", ran.err);
    }
    let ran = run(&mut observer(&["--help"]));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn the_version_says_whether_it_has_ebpf() {
    let ran = run(&mut observer(&["--version"]));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.contains("(with eBPF)") || ran.out.contains("(built without eBPF: "), "{}", ran.out);
}

#[test]
fn doctor_gives_a_line_each_and_the_exit_code_of_the_worst() {
    let ran = run(&mut observer(&["doctor", "0"]));
    assert_eq!((ran.code, ran.err.as_str()), (Some(2), ""));
    assert!(ran.out.contains("unusable  process"), "{}", ran.out);
    assert!(ran.out.ends_with("\ndoes not work here\n"), "{}", ran.out);

    let ran = run(&mut observer(&["doctor"]));
    let degraded = ran.out.lines().any(|line| line.starts_with("degraded"));
    let unusable = ran.out.lines().any(|line| line.starts_with("unusable"));
    assert_eq!(ran.code, Some(if unusable { 2 } else { i32::from(degraded) }), "{}", ran.out);
    for what in ["kernel ", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_PERFMON", "ebpf"] {
        assert!(ran.out.contains(&format!("  {what}")), "{what} is not in:\n{}", ran.out);
    }
    // A line each, as a table: the word, what, and what was found of it.
    for line in ran.out.lines().take_while(|line| !line.is_empty()) {
        let column = line.char_indices().nth(29).map_or(0, |(at, _)| at);
        let (left, right) = line.split_at(column);
        assert!(left.ends_with(' ') && !right.starts_with(' '), "not aligned: {line}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    // A pipe's other end may live on for a moment in what another test forks; a socket that is shut down does not.
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    reader.shutdown(std::net::Shutdown::Both).unwrap();
    let writer = Stdio::from(std::os::fd::OwnedFd::from(writer));
    let child = observer(&["doctor"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}
