//! Exec, fork and exit of a target.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use observer::kernel::{Change, KernelOptions};
use observer::observe::{DRAIN, KernelSource, Observer, Options};

use super::{Target, load, ready};

#[test]
#[ignore = "needs root"]
fn lifecycle_tells_of_exec_fork_and_exit() {
    let mut kernel = load(&KernelOptions::default());
    let mut target = Target::start("grow", &[]);
    ready(&mut target);
    kernel.add_target(target.pid()).unwrap();
    target.say("exec");
    ready(&mut target);
    target.say("fork");
    target.line();
    let changes: Vec<_> = kernel.drain().lifecycle.iter().map(|event| (event.pid, event.change)).collect();
    assert_eq!(changes[0], (target.pid(), Change::Exec));
    assert!(
        matches!(changes[1], (_, Change::Fork { child_global_tgid }) if child_global_tgid != 0),
        "{changes:?}"
    );
    assert_eq!(changes.len(), 2, "{changes:?}");
    let pid = target.pid();
    // Its input ends, and it leaves with status 7.
    let Target { child, input, .. } = &mut target;
    drop(std::mem::replace(
        input,
        Command::new("true").stdin(Stdio::piped()).spawn().unwrap().stdin.unwrap(),
    ));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    let events = kernel.drain().lifecycle;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].pid, events[0].change), (pid, Change::Exit { status: 7 << 8 }));
}

/// Nobody but `attach` itself empties the ring of the events there: a few thousand filled it.
#[test]
#[ignore = "needs root"]
fn a_target_that_forks_all_the_time_loses_nothing_in_attach() {
    let mut target = Target::start("forker", &[]);
    ready(&mut target);
    let options = Options { exact: false, growth: true, retained: false, allocations: None };
    let mut observer = Observer::attach(target.pid(), &options, KernelSource::Load).unwrap();
    const FORKS: u64 = 6_000;
    target.say(&FORKS.to_string());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(target.line(), "done");
            done.store(true, Ordering::Release);
        });
        // As `attach` does.
        while !done.load(Ordering::Acquire) {
            observer.drain();
            std::thread::sleep(DRAIN);
        }
    });
    let losses = observer.sample().unwrap().losses;
    assert_eq!(losses.get("lifecycle_ring_full"), None, "{losses:?}");
    // Two thousand events are as many as the ring holds: this would have lost most of them.
    const { assert!(FORKS > 2 * (64 << 10) / 32) };
}
