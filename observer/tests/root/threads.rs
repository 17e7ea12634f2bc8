//! Sleeping threads of real C programs, read from outside: needs leave to read another process, and a C compiler.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use observer::process::code::RuntimeCode;
use observer::sample::Group;
use observer::symbol::native::Native;
use observer::threads::{ThreadError, ThreadReader, ThreadSample};

use crate::programs::another_user::{as_nobody, without_override};
use crate::programs::c::{Census, Program, compile_as};

/// A running `sleepers`.
struct Sleepers(Program);

impl Sleepers {
    fn build(flags: &[&str]) -> Self {
        Self::build_as("sleepers", flags)
    }

    fn build_as(name: &str, flags: &[&str]) -> Self {
        Self::start(name, flags, Command::new)
    }

    fn start(name: &str, flags: &[&str], by: impl FnOnce(PathBuf) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(name);
        compile_as(&program, "cc", "sleepers", &[&["-O2", "-pthread"], flags].concat());
        Self(Program::start(&mut by(program), Some(directory)))
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn tell(&mut self, command: &str) {
        self.0.tell(command);
        // Its main thread sleeps too, once it reads the next command.
        let call = format!("/proc/{}/syscall", self.pid());
        while !std::fs::read_to_string(&call).unwrap().starts_with("0 ") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn reader(&self) -> ThreadReader {
        let pid = self.pid();
        ThreadReader::open(pid, &RuntimeCode::default(), Box::new(Native::new(pid)))
    }
}

fn functions(group: &Group) -> Vec<&str> {
    group.frames.iter().map(|frame| frame.function.as_str()).collect()
}

/// The groups whose stack has this function.
fn at<'s>(sample: &'s ThreadSample, function: &str) -> Vec<&'s Group> {
    sample.groups.iter().filter(|group| functions(group).contains(&function)).collect()
}

fn only<'s>(sample: &'s ThreadSample, function: &str) -> &'s Group {
    let found = at(sample, function);
    assert_eq!(found.len(), 1, "groups at {function}: {:#?}", sample.groups);
    found[0]
}

/// Neither frame pointers nor debug information nor PIE change what is seen.
fn sees_threads_that_slept_before(flags: &[&str], by_kernel: bool) {
    let mut target = Sleepers::build(flags);
    for command in ["mutex 200", "cond 30", "sem 7", "timed 5", "deep 2", "handler 1"] {
        target.tell(command);
    }
    let mut reader = target.reader();
    let mut census = by_kernel.then(|| Census::of(target.pid()));
    let mut take = |at| reader.sample(at, census.as_mut().map(Census::take).as_deref()).unwrap();
    let sample = take(10.0);
    assert_eq!(sample.threads, 246);
    assert_eq!(sample.groups.iter().map(|group| group.count).sum::<u64>(), 246);
    let main = only(&sample, "main");
    assert_eq!((main.count, main.wait_reason.as_str()), (1, "read"), "it waits for a command");
    assert_eq!(main.waits_on.as_ref().unwrap().kind, "pipe");
    let expected: BTreeMap<&str, (u64, &str, &[&str])> = BTreeMap::from([
        ("take_the_mutex", (200, "mutex lock", &["take_the_mutex", "on_mutex"][..])),
        ("wait_for_the_condition", (30, "condition wait", &["wait_for_the_condition", "on_cond"][..])),
        ("wait_for_the_semaphore", (7, "semaphore wait", &["wait_for_the_semaphore", "on_sem"][..])),
        ("wait_an_hour", (5, "semaphore wait", &["wait_an_hour", "on_time"][..])),
        ("handle_signal", (1, "semaphore wait", &["handle_signal"][..])),
        ("get_interrupted", (1, "semaphore wait", &["get_interrupted", "in_handler"][..])),
    ]);
    for (function, (count, reason, path)) in expected {
        let group = only(&sample, function);
        assert_eq!((group.count, group.wait_reason.as_str()), (count, reason), "{function}");
        let names = functions(group);
        assert!(names.windows(path.len()).any(|window| window == path), "{function}: {names:?}");
        assert_eq!(group.waits_on.as_ref().unwrap().objects, 1);
        assert_eq!((group.joined, group.left, group.moved), (0, 0, 0));
        assert_eq!(group.oldest_wait_seconds, Some(0.0));
        assert!(group.stack_bytes >= 4096 * count, "{function}: {}", group.stack_bytes);
    }
    let deep = only(&sample, "recurse");
    assert_eq!(deep.count, 2);
    assert_eq!(functions(deep).iter().filter(|name| **name == "recurse").count(), 101);
    assert_eq!(
        only(&sample, "wait_an_hour").waits_on.as_ref().unwrap().note.as_deref(),
        Some("with a timeout")
    );
    assert!(sample.degraded.is_empty(), "{:?}", sample.degraded);

    // Nothing moves: nothing changes but the age.
    let later = take(12.5);
    for (before, now) in sample.groups.iter().zip(&later.groups) {
        assert_eq!((before.id, before.count, &before.frames), (now.id, now.count, &now.frames));
        assert_eq!((now.joined, now.left, now.moved), (0, 0, 0));
        assert_eq!(now.oldest_wait_seconds, Some(2.5));
    }
}

#[test]
#[ignore = "needs root"]
fn root_sees_sleepers_with_frame_pointers() {
    sees_threads_that_slept_before(&["-fno-omit-frame-pointer"], true);
}

/// `/proc` does not tell the frame pointer: what is seen is right, and that more is not seen is said.
#[test]
#[ignore = "needs root"]
fn root_measures_stacks_of_another_users_threads() {
    let mut target = Sleepers::start("sleepers", &[], as_nobody);
    target.tell("mutex 50");
    let mut reader = without_override(|| target.reader());
    let sample = reader.sample(10.0, Some(&Census::of(target.pid()).take())).unwrap();
    let bytes = only(&sample, "take_the_mutex").stack_bytes;
    // A thread's first pages, and far from all of what is reserved for it.
    assert!((50 * 4096..50 * 65_536).contains(&bytes), "{bytes}");
}

#[test]
#[ignore = "needs root"]
fn root_says_so_where_stacks_end_early() {
    let mut target = Sleepers::build(&["-fno-omit-frame-pointer"]);
    target.tell("mutex 5");
    let sample = target.reader().sample(0.0, None).unwrap();
    let group = only(&sample, "take_the_mutex");
    assert_eq!((group.count, functions(group).last().copied()), (5, Some("take_the_mutex")));
    assert_eq!(sample.degraded.len(), 1);
    assert!(sample.degraded[0].reason.starts_with("5 of 6 "), "{:?}", sample.degraded);
}

#[test]
#[ignore = "needs root"]
fn root_sees_sleepers_without_frame_pointers() {
    for by_kernel in [false, true] {
        sees_threads_that_slept_before(&["-fomit-frame-pointer"], by_kernel);
    }
}

#[test]
#[ignore = "needs root"]
fn root_sees_sleepers_in_a_static_program() {
    sees_threads_that_slept_before(&["-static"], true);
}

#[test]
#[ignore = "needs root"]
fn root_names_lines_where_the_program_has_them() {
    let mut target = Sleepers::build(&["-g"]);
    target.tell("sem 3");
    let sample = target.reader().sample(0.0, None).unwrap();
    let group = only(&sample, "wait_for_the_semaphore");
    let frame = group.frames.iter().find(|frame| frame.function == "wait_for_the_semaphore").unwrap();
    let source = include_str!("../../../xtask/targets/c/sleepers/sleepers.c");
    let line = source.lines().position(|line| line.contains("sem_wait(&never)")).unwrap() as u32 + 1;
    assert_eq!(frame.line, Some(line));
    assert!(frame.file.as_deref().unwrap().ends_with("sleepers.c"), "{:?}", frame.file);
}

/// `sem_wait` ends by jumping to what waits, so it is on no stack.
#[test]
#[ignore = "needs root"]
fn root_names_what_jumped_instead_of_calling() {
    let mut target = Sleepers::build(&[]);
    target.tell("sem 3");
    let sample = target.reader().sample(0.0, None).unwrap();
    let group = only(&sample, "wait_for_the_semaphore");
    let caller = group.frames.iter().position(|frame| frame.function == "wait_for_the_semaphore").unwrap();
    let jumped = &group.frames[caller - 1];
    assert_eq!((jumped.function.as_str(), jumped.tail_call), ("sem_wait", true), "{group:#?}");
    assert!(!group.frames[0].tail_call && !group.frames[caller].tail_call);
}

#[test]
#[ignore = "needs root"]
fn root_a_stripped_program_keeps_its_places_apart() {
    let mut target = Sleepers::build(&["-s"]);
    for command in ["mutex 4", "sem 3", "cond 2"] {
        target.tell(command);
    }
    let sample = target.reader().sample(0.0, None).unwrap();
    let counts: Vec<u64> = sample.groups.iter().map(|group| group.count).collect();
    assert_eq!(counts, [4, 3, 2, 1]);
    // The last is the main thread, that reads commands.
    for group in &sample.groups[..3] {
        let own: Vec<_> = group
            .frames
            .iter()
            .filter(|frame| frame.module.as_deref().is_some_and(|module| module.starts_with("sleepers")))
            .collect();
        assert_eq!(own.len(), 2, "{group:#?}");
        for frame in own {
            assert!(frame.function.is_empty() && frame.address > 0);
            assert!(frame.build_id.as_deref().is_some_and(|id| id.len() >= 16), "{frame:?}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn root_ids_are_the_same_in_another_process_of_the_program() {
    let ids = || {
        let mut target = Sleepers::build(&[]);
        target.tell("mutex 2");
        target.tell("sem 1");
        let sample = target.reader().sample(0.0, None).unwrap();
        sample.groups.iter().map(|group| group.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(), ids());
}

#[test]
#[ignore = "needs root"]
fn root_follows_members_that_come_go_and_work() {
    let mut target = Sleepers::build(&[]);
    target.tell("sem 20");
    target.tell("work 8");
    let mut reader = target.reader();
    let first = reader.sample(0.0, None).unwrap();
    assert_eq!((only(&first, "on_sem").joined, only(&first, "worker").joined), (0, 0));

    target.tell("wake 3");
    target.tell("free 5");
    target.tell("sem 2");
    let second = reader.sample(7.0, None).unwrap();
    let stuck = only(&second, "on_sem");
    assert_eq!((stuck.count, stuck.joined, stuck.left), (17, 2, 5));
    assert_eq!(stuck.oldest_wait_seconds, Some(7.0), "those that stayed have waited since the first sample");
    let pool = only(&second, "worker");
    assert_eq!((pool.count, pool.joined, pool.left, pool.moved), (8, 0, 0, 8));
    assert_eq!(pool.oldest_wait_seconds, Some(0.0), "each took a job in between");
    assert_eq!(pool.waits_on.as_ref().unwrap().objects, 8);

    // A leak: more each time, and none ever leaves.
    for step in 1..=5u32 {
        target.tell("mutex 10");
        let sample = reader.sample(7.0 + f64::from(step), None).unwrap();
        let leak = only(&sample, "take_the_mutex");
        assert_eq!((leak.count, leak.joined, leak.left, leak.moved), (u64::from(step) * 10, 10, 0, 0));
        assert_eq!(leak.oldest_wait_seconds, Some(f64::from(step) - 1.0));
    }
}

#[test]
#[ignore = "needs root"]
fn root_a_process_that_exits_ends_the_reading() {
    let mut target = Sleepers::build(&[]);
    target.tell("sem 50");
    let mut reader = target.reader();
    assert_eq!(reader.sample(0.0, None).unwrap().threads, 51);
    writeln!(target.0.commands, "quit").unwrap();
    target.0.child.wait().unwrap();
    assert!(matches!(reader.sample(1.0, None), Err(ThreadError::Exited(_))));

    // Killed in the middle of being read, again and again: an error or a smaller sample, never a panic.
    for _ in 0..5 {
        let mut target = Sleepers::build(&[]);
        target.tell("sem 300");
        let mut reader = target.reader();
        let pid = nix::unistd::Pid::from_raw(target.pid().cast_signed());
        let killer =
            std::thread::spawn(move || nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap());
        let outcome = reader.sample(0.0, None);
        killer.join().unwrap();
        if let Ok(sample) = outcome {
            assert!(sample.groups.iter().map(|group| group.count).sum::<u64>() <= 300);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn root_hostile_names_and_deleted_files_are_read_all_the_same() {
    let mut target = Sleepers::build_as("x) S 1 2\n\u{1b}[31m (deleted)", &[]);
    target.tell("sem 4");
    let program = std::fs::read_link(format!("/proc/{}/exe", target.pid())).unwrap();
    std::fs::remove_file(program).unwrap();
    let sample = target.reader().sample(0.0, None).unwrap();
    assert_eq!(only(&sample, "wait_for_the_semaphore").count, 4);
}
