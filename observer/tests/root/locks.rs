//! Locks of real C programs, their holders and circles, read from outside: needs leave to read another process, and a C
//! compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use observer::diagnose::locks;
use observer::process::code::RuntimeCode;
use observer::sample::{Deadlock, Group, Sample};
use observer::symbol::native::Native;
use observer::threads::{ThreadReader, ThreadSample};

use crate::programs::c::{Census, Program, USUAL, compile};

fn build(directory: &Path, compiler: &str, flags: &[&str]) -> PathBuf {
    compile(compiler, "locks", &[&USUAL, flags].concat(), directory)
}

/// A running `locks`.
struct Locks(Program);

impl Locks {
    fn new(compiler: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = build(directory.path(), compiler, flags);
        Self::start(&mut Command::new(program), directory)
    }

    fn start(command: &mut Command, directory: tempfile::TempDir) -> Self {
        Self(Program::start(command, Some(directory)))
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn tell(&mut self, commands: &[&str]) {
        for command in commands {
            self.0.tell(command);
        }
    }

    fn reader(&self) -> ThreadReader {
        let pid = self.pid();
        ThreadReader::open(pid, &RuntimeCode::default(), Box::new(Native::new(pid)))
    }
}

/// A moment with its sentences.
fn told(read: ThreadSample) -> Sample {
    let mut sample = Sample { groups: read.groups, deadlocks: read.deadlocks, ..Sample::default() };
    locks::tell(&mut sample);
    sample
}

fn functions(group: &Group) -> Vec<&str> {
    group.frames.iter().map(|frame| frame.function.as_str()).collect()
}

/// The groups whose waits have this name.
fn named<'s>(sample: &'s Sample, reason: &str) -> Vec<&'s Group> {
    sample.groups.iter().filter(|group| group.wait_reason == reason).collect()
}

fn only<'s>(sample: &'s Sample, reason: &str) -> &'s Group {
    let found = named(sample, reason);
    assert_eq!(found.len(), 1, "groups in {reason}: {:#?}", sample.groups);
    found[0]
}

fn owner(group: &Group) -> &str {
    group.waits_on.as_ref().and_then(|on| on.owner.as_deref()).unwrap_or_default()
}

/// Names and waits of the threads in a circle.
fn circle(deadlock: &Deadlock) -> Vec<(&str, &str)> {
    deadlock.threads.iter().map(|thread| (thread.name.as_str(), thread.wait_reason.as_str())).collect()
}

#[test]
#[ignore = "needs root"]
fn root_every_kind_of_mutex_says_who_holds_it() {
    let all = [
        ("normal", "naps", "hold_and_nap"),
        ("adaptive", "reads", "hold_and_read"),
        ("recursive", "waits", "hold_and_wait"),
        ("errorcheck", "reads", "hold_and_read"),
        ("robust", "reads", "hold_and_read"),
        ("pi", "spins", "hold_and_spin"),
        ("pi_robust", "reads", "hold_and_read"),
        ("shared", "reads", "hold_and_read"),
        ("shared_pi", "naps", "hold_and_nap"),
    ];
    for flags in [&[][..], &["-static"]] {
        let mut target = Locks::new("cc", flags);
        let mut census = Census::of(target.pid());
        for (kind, does, at) in all {
            let mut fresh = Locks::start(
                &mut Command::new(format!("/proc/{}/exe", target.pid())),
                tempfile::tempdir().unwrap(),
            );
            fresh.tell(&[&format!("held {kind} {does} 3")]);
            census.turn_to(fresh.pid());
            let sample = told(fresh.reader().sample(1.0, Some(&census.take())).unwrap());
            let group = only(&sample, "mutex lock");
            let on = group.waits_on.as_ref().unwrap();
            assert_eq!((group.count, on.kind.as_str(), on.most_waiters), (3, "mutex", Some(3)), "{kind}");
            let holder = on.holders.first().unwrap_or_else(|| panic!("{kind}: nobody holds {on:?}"));
            assert_eq!((holder.name.as_str(), holder.waiters), ("the holder", 3), "{kind}");
            assert_eq!(holder.state, if does == "spins" { "running" } else { "sleeping" }, "{kind}");
            let sentence = owner(group);
            assert!(
                sentence.starts_with(&format!("thread {} (the holder), which ", holder.tid)),
                "{sentence}"
            );
            assert!(
                holder.frames.iter().any(|frame| frame.function == at),
                "{kind} {does}: {:#?}",
                holder.frames
            );
            assert!(sample.deadlocks.is_empty(), "{kind}: {:#?}", sample.deadlocks);
        }
        // Without eBPF a running owner's registers are not told; who it is is.
        target.tell(&["held normal spins 2", "held errorcheck reads 1"]);
        let sample = told(target.reader().sample(1.0, None).unwrap());
        let holders: Vec<_> =
            named(&sample, "mutex lock").iter().flat_map(|g| g.waits_on.clone().unwrap().holders).collect();
        assert!(
            holders.len() == 2 && holders.iter().all(|holder| holder.name == "the holder"),
            "{holders:?}"
        );
    }
}

fn finds_circles(compiler: &str, flags: &[&str], kinds: &[&str], by_kernel: bool) {
    for kind in kinds {
        let mut target = Locks::new(compiler, flags);
        target.tell(&[&format!("two {kind}"), "behind 5", &format!("three {kind}")]);
        let mut reader = target.reader();
        let mut census = by_kernel.then(|| Census::of(target.pid()));
        let mut take = |at| told(reader.sample(at, census.as_mut().map(Census::take).as_deref()).unwrap());
        let sample = take(1.0);
        let mut lengths: Vec<_> = sample.deadlocks.iter().map(|one| (one.length, one.also_waiting)).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [(2, 5), (3, 0)], "{kind}: {:#?}", sample.deadlocks);
        for deadlock in &sample.deadlocks {
            for (place, thread) in deadlock.threads.iter().enumerate() {
                let next = &deadlock.threads[(place + 1) % deadlock.threads.len()];
                assert_eq!((thread.held_by, thread.wait_reason.as_str()), (next.tid, "mutex lock"));
                let names: Vec<_> = thread.frames.iter().map(|frame| frame.function.as_str()).collect();
                let path = ["take_the_next", "take_both", "go_round"];
                assert!(names.windows(3).any(|window| window == path), "{kind}: {names:?}");
                assert_eq!(thread.site.as_ref().unwrap().function, "take_the_next");
            }
            assert!(deadlock.description.contains("at take_the_next waits for the mutex"), "{deadlock:?}");
        }
        // They stay, and stay the same.
        let later = take(3.5);
        // The main thread may not yet be back at its standard input at the first look.
        let ids =
            |sample: &Sample| named(sample, "mutex lock").iter().map(|group| group.id).collect::<Vec<_>>();
        assert_eq!(ids(&sample), ids(&later));
        assert_eq!(later.deadlocks.len(), 2);
        assert_eq!(later.deadlocks[0].threads[0].wait_seconds, 2.5);
    }
}

#[test]
#[ignore = "needs root"]
fn root_circles_are_found_in_all_kinds_of_mutexes() {
    let kinds = ["normal", "recursive", "robust"];
    finds_circles("cc", &[], &kinds, true);
    finds_circles("cc", &["-static"], &kinds[..1], false);
    finds_circles("cc", &["-static-pie"], &kinds[..1], true);
}

#[test]
#[ignore = "needs root"]
fn root_the_kernel_refuses_a_circle_of_pi_mutexes() {
    let mut target = Locks::new("cc", &[]);
    target.tell(&["two pi"]);
    let sample = told(target.reader().sample(1.0, None).unwrap());
    // FUTEX_LOCK_PI answers EDEADLK, and glibc then sleeps for ever on a word of nobody.
    assert!(sample.deadlocks.len() <= 1, "{:#?}", sample.deadlocks);
}

#[test]
#[ignore = "needs root"]
fn root_threads_that_wait_for_themselves_and_for_ends() {
    for by_kernel in [false, true] {
        let mut target = Locks::new("cc", &[]);
        target.tell(&["self normal", "join", "joins", "timed"]);
        let mut census = by_kernel.then(|| Census::of(target.pid()));
        let sample = told(target.reader().sample(0.0, census.as_mut().map(Census::take).as_deref()).unwrap());
        let mut circles: Vec<_> = sample.deadlocks.iter().map(circle).collect();
        for circle in &mut circles {
            circle.sort_unstable();
        }
        circles.sort();
        let ring = ("ring", "thread join");
        assert_eq!(
            circles,
            [
                vec![("joined", "mutex lock"), ("joiner", "thread join")],
                vec![ring, ring, ring],
                vec![("selfish", "mutex lock")],
            ],
            "and not the two that set themselves a time: {:#?}",
            sample.deadlocks
        );
    }
}

#[test]
#[ignore = "needs root"]
fn root_owners_that_are_gone_or_in_another_process_are_said() {
    let mut target = Locks::new("cc", &[]);
    target.tell(&["other 4"]);
    let sample = told(target.reader().sample(0.0, None).unwrap());
    let holder = &only(&sample, "mutex lock").waits_on.as_ref().unwrap().holders[0];
    assert_eq!((holder.state.as_str(), holder.name.as_str()), ("elsewhere", "neighbour"));
    assert_eq!((holder.process, holder.waiters), (Some(holder.tid), 4));
    assert!(owner(only(&sample, "mutex lock")).ends_with("which is not observed"));

    let mut target = Locks::new("cc", &[]);
    target.tell(&["held normal ends 2"]);
    let sample = told(target.reader().sample(0.0, None).unwrap());
    let sentence = owner(only(&sample, "mutex lock"));
    assert!(sentence.contains("which is no thread of this process: it has ended"), "{sentence}");

    let mut target = Locks::new("cc", &[]);
    target.tell(&["inconsistent 2"]);
    let sample = told(target.reader().sample(0.0, None).unwrap());
    assert!(owner(only(&sample, "mutex lock")).contains(" (heir), which "), "{:#?}", sample.groups);
}

#[test]
#[ignore = "needs root"]
fn root_waits_have_their_names_and_rwlocks_their_writer() {
    let mut target = Locks::new("cc", &[]);
    target.tell(&["rwlock 3", "sem 2", "cond 4", "barrier 5", "joined 6", "once 1"]);
    let mut census = Census::of(target.pid());
    let mut reader = target.reader();
    let sample = told(reader.sample(0.0, Some(&census.take())).unwrap());
    let counts = |reason: &str| only(&sample, reason).count;
    for (reason, count) in [
        ("semaphore wait", 2),
        ("condition wait", 4),
        ("barrier wait", 5),
        ("thread join", 6),
        ("rwlock read lock", 3),
        ("rwlock write lock", 3),
        ("once wait", 1),
    ] {
        assert_eq!(counts(reason), count, "{reason}");
    }
    for reason in ["rwlock read lock", "rwlock write lock"] {
        assert!(owner(only(&sample, reason)).contains("(rw holder), which "), "{:#?}", only(&sample, reason));
    }
    let join = only(&sample, "thread join").waits_on.as_ref().unwrap();
    assert_eq!((join.kind.as_str(), join.objects, join.holders.len()), ("thread", 6, 3));
    assert_eq!(named(&sample, "semaphore wait")[0].waits_on.as_ref().unwrap().holders, []);

    let mut target = Locks::new("cc", &[]);
    target.tell(&["readers 2"]);
    let sample = told(target.reader().sample(0.0, None).unwrap());
    // The first of them waits at another place than those behind it.
    let writers = named(&sample, "rwlock write lock");
    assert_eq!(writers.iter().map(|group| group.count).sum::<u64>(), 2);
    for group in writers {
        let note = group.waits_on.as_ref().unwrap().note.as_deref();
        assert_eq!(note, Some("held by 3 readers, who are not recorded"));
    }
}

/// Two hundred looks at threads that take four locks from each other, in order.
#[test]
#[ignore = "needs root"]
fn root_contention_is_no_deadlock() {
    let mut target = Locks::new("cc", &[]);
    target.tell(&["churn 24", "sem 5"]);
    let mut reader = target.reader();
    let mut census = Census::of(target.pid());
    let (mut owners, mut waiters) = (0, 0);
    for look in 0..200 {
        let records = (look % 2 == 0).then(|| census.take());
        let sample = told(reader.sample(f64::from(look), records.as_deref()).unwrap());
        assert!(sample.deadlocks.is_empty(), "look {look}: {:#?}", sample.deadlocks);
        for group in named(&sample, "mutex lock") {
            waiters += group.count;
            owners += group.waits_on.as_ref().map_or(0, |on| on.holders.len());
        }
    }
    assert!(waiters > 200 && owners > 20, "{waiters} waits and {owners} owners were seen");
}

#[test]
#[ignore = "needs root"]
fn root_musl_says_who_holds_what_it_records() {
    for flags in [&["-static"][..], &[]] {
        let mut target = Locks::new("musl-gcc", flags);
        target.tell(&["two recursive", "behind 3", "self robust", "held errorcheck naps 2"]);
        let sample = told(target.reader().sample(0.0, None).unwrap());
        let mut found: Vec<_> = sample.deadlocks.iter().map(|one| (one.length, one.also_waiting)).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, 0), (2, 3)], "{:#?}", sample.deadlocks);
        let all: Vec<_> = sample.groups.iter().filter_map(|group| group.waits_on.as_ref()).collect();
        assert!(all.iter().any(|on| on.holders.iter().any(|one| one.name == "the holder")), "{all:#?}");
    }
    let mut target = Locks::new("musl-gcc", &["-static"]);
    target.tell(&["held normal naps 2"]);
    let sample = told(target.reader().sample(0.0, None).unwrap());
    assert!(sample.groups.iter().all(|group| owner(group).is_empty()), "{:#?}", sample.groups);
}

/// The target's memory calls its threads by other numbers than observer does.
#[test]
#[ignore = "needs root"]
fn root_numbers_of_another_namespace_are_translated() {
    let directory = tempfile::tempdir().unwrap();
    let program = build(directory.path(), "cc", &[]);
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]).arg(&program);
    let mut target = Locks::start(&mut unshare, directory);
    target.tell(&["two normal", "held normal reads 2"]);
    let children = format!("/proc/{0}/task/{0}/children", target.pid());
    let pid: u32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    for by_kernel in [false, true] {
        let mut reader = ThreadReader::open(pid, &RuntimeCode::default(), Box::new(Native::new(pid)));
        let mut census = by_kernel.then(|| Census::of(pid));
        let sample = told(reader.sample(0.0, census.as_mut().map(Census::take).as_deref()).unwrap());
        assert_eq!(sample.deadlocks.len(), 1, "{:#?}", sample.groups);
        for thread in &sample.deadlocks[0].threads {
            assert!(
                thread.namespace_tid.unwrap() < 20 && thread.tid > 20 && thread.name.starts_with("round")
            );
        }
        let held =
            named(&sample, "mutex lock").into_iter().find(|g| functions(g).contains(&"want_the_mutex"));
        assert!(owner(held.unwrap()).contains(" (the holder), which "), "{held:#?}");
    }
}

/// What the program prints, by snapshot and by attach.
#[test]
#[ignore = "needs root"]
fn root_a_deadlock_stands_in_both_documents_and_above_the_rest() {
    let mut target = Locks::new("cc", &[]);
    target.tell(&["two normal", "behind 14"]);
    let pid = target.pid().to_string();
    let observer = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_observer")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let documents = [
        observer(&["snapshot", &pid, "--format", "json"]),
        observer(&["attach", &pid, "--duration", "2s", "--interval", "500ms", "--format", "json"]),
    ];
    for text in documents {
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let deadlock = &document["deadlocks"][0];
        assert_eq!((deadlock["length"].as_u64(), deadlock["also_waiting"].as_u64()), (Some(2), Some(14)));
        for thread in deadlock["threads"].as_array().unwrap() {
            assert_eq!(thread["site"]["function"], "take_the_next");
            let frames = thread["frames"].as_array().unwrap();
            assert!(frames.iter().any(|frame| frame["function"] == "take_both"), "{thread:#}");
        }
    }
    let text = observer(&["snapshot", &pid]);
    let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words} in\n{text}"));
    assert!(place("DEADLOCK") < place("memory"), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.join(" ").contains("14 more threads wait for them"), "{text}");
    assert!(text.matches("take_both").count() >= 2, "both stacks: {text}");
}
