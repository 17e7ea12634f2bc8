//! Hooks that are there in windows only: what is counted then is what the programs themselves count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use observer::kernel::{Hooks, KernelOptions, Probes, TargetHandle, Windows};
use observer::sample::Waits;

use super::{Target, load, ready};

/// Short windows at all times, an eighth of it timed, so that a test sees many of them.
fn short_windows() -> KernelOptions {
    let windows = Windows {
        every: Duration::from_millis(400),
        timed: Duration::from_millis(50),
        watched: Duration::from_millis(50),
        busy_switches: 0.0,
        busy_faults: 0.0,
    };
    KernelOptions { hooks: Hooks::Windows(windows), ..KernelOptions::default() }
}

/// What a `pacers` says of its waits: how many have ended, and their seconds.
fn paced(target: &mut Target) -> (f64, f64) {
    target.say("count");
    let line = target.line();
    let (ended, seconds) = line.split_once(' ').unwrap();
    (ended.parse().unwrap(), seconds.parse().unwrap())
}

/// Of a histogram: how many, and the seconds that they took, from the middle of each bucket.
fn counted(waits: &Waits) -> (f64, f64) {
    let buckets = waits.log2_microseconds.iter().enumerate();
    let seconds = buckets.map(|(bucket, &count)| count as f64 * 2f64.powi(bucket as i32) * 1.5e-6).sum();
    (waits.ended as f64, seconds)
}

/// Waits far shorter and far longer than a window, about as long, and in bursts: what windows count is what the
/// programs themselves count.
#[test]
#[ignore = "needs root"]
fn windows_count_short_and_long_waits_alike() {
    let mut kernel = load(&short_windows());
    // Threads, milliseconds a wait, waits in a burst and milliseconds between two; what may be off.
    let kinds: [([&str; 4], f64); 5] = [
        (["8", "1", "0", "0"], 0.1),
        (["40", "25", "0", "0"], 0.1),
        (["60", "150", "0", "0"], 0.15),
        (["800", "1500", "0", "0"], 0.15),
        (["40", "2", "100", "1700"], 0.25),
    ];
    let mut targets: Vec<(Target, TargetHandle)> = kinds
        .iter()
        .map(|(arguments, _)| {
            let mut target = Target::start("pacers", arguments);
            ready(&mut target);
            let handle = kernel.add_target(target.pid()).unwrap();
            (target, handle)
        })
        .collect();
    let drain_for = |kernel: &mut Probes, seconds| {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            kernel.drain();
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    // Until the windows have begun, and what was timed before them has ended.
    drain_for(&mut kernel, 5);
    let mut before = Vec::new();
    for (target, handle) in &mut targets {
        before.push((paced(target), counted(&kernel.waits(handle).unwrap())));
    }
    drain_for(&mut kernel, 40);
    let mut wrong = Vec::new();
    for (((target, handle), before), (arguments, most)) in targets.iter_mut().zip(before).zip(kinds) {
        let (truth, told) = (paced(target), counted(&kernel.waits(handle).unwrap()));
        let (waits, seconds) = (truth.0 - before.0.0, truth.1 - before.0.1);
        let (counted, estimated) = (told.0 - before.1.0, told.1 - before.1.1);
        let off = counted / waits - 1.0;
        let line = format!(
            "{arguments:?}: {counted:.0} of {waits:.0} waits ({off:+.3}), {estimated:.1} s of {seconds:.1} s ({:+.3})",
            estimated / seconds - 1.0
        );
        println!("{line}");
        // A bucket's middle may be off by a third.
        let seconds_fit = (0.55..1.6).contains(&(estimated / seconds));
        if off.abs() > most || !seconds_fit {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(kernel.drain().losses.get("waits_threads_full"), None);
}

/// Page faults that come all the time, and in bursts: samples of windows stand for as many as there were.
#[test]
#[ignore = "needs root"]
fn windows_sample_steady_faults_and_bursts_alike() {
    for (rounds, pause, most) in [(4_000u64, 0, 0.15), (4_000, 130, 0.3)] {
        let mut kernel = load(&short_windows());
        let mut target = Target::start("loops", &[]);
        ready(&mut target);
        kernel.add_target(target.pid()).unwrap();
        let (counting, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let (mut told, mut truth) = (0u64, 0u64);
        std::thread::scope(|scope| {
            // Drained by the clock, not by what the target does: windows open when it is.
            let drains = scope.spawn(|| {
                let mut told = 0;
                while !done.load(Ordering::Acquire) {
                    let faults: u64 = kernel.drain().faults.iter().map(|fault| fault.weight).sum();
                    told += if counting.load(Ordering::Acquire) { faults } else { 0 };
                    std::thread::sleep(Duration::from_millis(2));
                }
                told
            });
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(22) {
                target.say(&format!("fault {rounds}"));
                target.line();
                std::thread::sleep(Duration::from_millis(pause));
                // Until the windows have begun.
                if counting.load(Ordering::Acquire) {
                    truth += 4 * rounds;
                }
                counting.store(begun.elapsed() > Duration::from_secs(2), Ordering::Release);
            }
            done.store(true, Ordering::Release);
            told = drains.join().unwrap();
        });
        let off = told as f64 / truth as f64 - 1.0;
        println!("pause {pause} ms: {told} faults told, {truth} made: {off:+.3}");
        assert!(off.abs() < most, "pause {pause} ms: {told} faults told, {truth} made");
    }
}
