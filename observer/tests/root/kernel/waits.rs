//! Waits that ended, by how long they took, and with `--exact` every byte mapped.

use std::time::{Duration, Instant};

use observer::kernel::KernelOptions;
use observer::sample::Waits;

use super::{Target, load, ready, signal};

#[test]
#[ignore = "needs root"]
fn waits_are_counted_by_time_and_once_though_a_signal_interrupts() {
    let mut kernel = load(&KernelOptions::default());
    let mut target = Target::start("waits", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    target.say("wait 20 30");
    target.line();
    target.say("timed 10 20");
    target.line();
    // Nothing to wait for: no wait.
    target.say("refuse 1000");
    target.line();
    let waits = kernel.waits(&handle).unwrap();
    let between = |waits: &Waits, low: usize, high: usize| -> u64 {
        waits.log2_microseconds.iter().take(high + 1).skip(low).sum()
    };
    // 20 and 30 ms and what the machine adds: 2^14 µs up; a wait that begins late is shorter.
    assert!((26..=30).contains(&between(&waits, 14, 39)), "{waits:?}");
    assert!((28..=30).contains(&waits.ended), "{waits:?}");

    // Stopped and continued in the middle, once a wait without and once one with a time limit.
    for command in ["wait 1 400", "timed 1 400"] {
        let before = kernel.waits(&handle).unwrap();
        target.say(command);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(50));
            signal(target.pid(), libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(20));
            signal(target.pid(), libc::SIGCONT);
        }
        target.line();
        let after = kernel.waits(&handle).unwrap();
        assert_eq!(after.ended - before.ended, 1, "{command}: {before:?} {after:?}");
        assert_eq!(between(&after, 18, 39) - between(&before, 18, 39), 1, "{command}: {after:?}");
    }
    assert_eq!(kernel.drain().losses.get("waits_threads_full"), None);
}

/// Where there are many, one of so many is timed and stands for them: the sum is that of the kernel's own count.
#[test]
#[ignore = "needs root"]
fn many_waits_are_timed_in_part_and_counted_right() {
    let mut kernel = load(&KernelOptions::default());
    let mut target = Target::start("pingpong", &["4"]);
    target.line();
    let before = switches_of_children();
    let handle = kernel.add_target(target.pid()).unwrap();
    let begun = Instant::now();
    let mut period = 1;
    while begun.elapsed() < Duration::from_secs(4) {
        target.say("20000");
        target.line();
        kernel.drain();
        period = period.max(kernel.wait_period().unwrap());
    }
    assert!(period >= 8, "one of {period} was timed at the least");
    let waits = kernel.waits(&handle).unwrap();
    drop(target);
    let truth = switches_of_children() - before;
    let off = waits.ended as f64 / truth as f64 - 1.0;
    println!("one of {period}: {} counted, {truth} by the kernel: off by {off:.4}", waits.ended);
    assert!(off.abs() < 0.03, "{} counted, {truth} by the kernel", waits.ended);

    // And all of them again when there are few.
    let mut target = Target::start("waits", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    while kernel.wait_period() != Some(1) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", kernel.wait_period());
        std::thread::sleep(Duration::from_millis(100));
        kernel.drain();
    }
    target.say("timed 25 4");
    target.line();
    assert_eq!(kernel.waits(&handle).unwrap().ended, 25);
}

/// How often all threads of the children that were waited for left a CPU by themselves. Tests of this ring run one
/// after the other.
fn switches_of_children() -> i64 {
    // SAFETY: the kernel fills in the structure, for which zero is a value.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage.ru_nvcsw
    }
}

#[test]
#[ignore = "needs root"]
fn exact_counts_every_byte() {
    let mut kernel = load(&KernelOptions { exact: true, ..KernelOptions::default() });
    let mut target = Target::start("mapper", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    for round in 1..=3u64 {
        target.say("go");
        target.line();
        let mapped = kernel.mapped(&handle).unwrap();
        let mib = round << 20;
        let expected =
            |list: &[(&str, u64)]| list.iter().map(|&(name, bytes)| (name.into(), bytes)).collect();
        assert_eq!(mapped.source, "exact");
        assert_eq!(
            mapped.mapped_bytes,
            expected(&[
                ("mmap", 4 * mib + 8192 * round),
                ("mmap_reserve", 64 * mib),
                ("mprotect", 3 * mib),
                ("mremap", 5 * mib),
                ("brk", 6 * mib),
            ])
        );
        assert_eq!(
            mapped.unmapped_bytes,
            expected(&[
                ("munmap", mib + 8192 * round),
                ("mprotect", mib),
                ("madvise", 2 * mib),
                ("mremap", 2 * mib),
                ("brk", 2 * mib),
            ])
        );
    }
}

#[test]
#[ignore = "needs root"]
fn fifty_targets_are_kept_apart() {
    let mut kernel = load(&KernelOptions::default());
    let mut targets: Vec<_> = (0..50)
        .map(|_| {
            let mut target = Target::start("waits", &[]);
            ready(&mut target);
            let handle = kernel.add_target(target.pid()).unwrap();
            (target, handle)
        })
        .collect();
    for (index, (target, _)) in targets.iter_mut().enumerate() {
        target.say(&format!("timed {} 60", index % 7 + 1));
    }
    for (index, (target, handle)) in targets.iter_mut().enumerate() {
        target.line();
        assert_eq!(kernel.waits(handle).unwrap().ended, index as u64 % 7 + 1, "target {index}");
        let census = kernel.census(handle).unwrap();
        assert_eq!(census.threads.len(), 1);
        assert_eq!(census.threads[0].tid, target.pid());
    }
    // A slot that is given again starts from nothing; who is removed is no longer looked at.
    let (mut target, handle) = targets.remove(0);
    kernel.remove_target(&handle);
    target.say("timed 5 2");
    target.line();
    assert_eq!(kernel.waits(&handle), None);
    let handle = kernel.add_target(target.pid()).unwrap();
    assert_eq!(kernel.waits(&handle).unwrap().ended, 0);
    assert!(kernel.add_target(target.pid()).is_err(), "twice");
}
