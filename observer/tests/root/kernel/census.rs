//! The census of a target's threads, beside what /proc says of them.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use observer::kernel::{KernelOptions, ThreadRecord};

use super::{Target, load, ready};

fn proc_tids(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Those of a census that wait on the futex at `address`.
fn waiting_on(threads: &[ThreadRecord], address: u64) -> usize {
    let futex = libc::SYS_futex.cast_unsigned();
    threads.iter().filter(|thread| thread.syscall == Some(futex) && thread.arguments[0] == address).count()
}

#[test]
#[ignore = "needs root"]
fn census_agrees_with_proc_and_sees_who_slept_before() {
    let mut target = Target::start("sleepers", &["200"]);
    let word = ready(&mut target);
    let mut kernel = load(&KernelOptions::default());
    let handle = kernel.add_target(target.pid()).unwrap();
    assert_eq!((handle.pid(), handle.namespace_pid()), (target.pid(), target.pid()));
    let census = kernel.census(&handle).unwrap();
    let tids: BTreeSet<u32> = census.threads.iter().map(|thread| thread.tid).collect();
    assert_eq!(tids, proc_tids(target.pid()));
    assert_eq!(waiting_on(&census.threads, word), 200);

    let sleepers: Vec<_> = census.threads.iter().filter(|thread| thread.tid != target.pid()).collect();
    for thread in &sleepers {
        assert!(thread.is_sleeping(), "{thread:?}");
        assert_eq!(thread.namespace_tid, thread.tid);
        assert_eq!(thread.comm, "sleepers");
        let proc = fs::read_to_string(format!("/proc/{}/task/{}/syscall", target.pid(), thread.tid)).unwrap();
        let fields: Vec<_> = proc.split_whitespace().collect();
        assert_eq!(fields[0], "202");
        assert_eq!(fields[7], format!("{:#x}", thread.sp));
        assert_eq!(fields[8], format!("{:#x}", thread.ip));
        let status =
            fs::read_to_string(format!("/proc/{}/task/{}/status", target.pid(), thread.tid)).unwrap();
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        assert_eq!(switches.trim(), thread.voluntary_switches.to_string());
    }

    // The same waits are the same at the next census, and other ones once woken.
    let again = kernel.census(&handle).unwrap();
    let key = |thread: &ThreadRecord| (thread.tid, thread.sp, thread.voluntary_switches);
    let before: BTreeSet<_> = sleepers.iter().map(|thread| key(thread)).collect();
    assert_eq!(again.threads.iter().filter(|thread| before.contains(&key(thread))).count(), 200);
    target.say("wake");
    std::thread::sleep(Duration::from_millis(300));
    let woken = kernel.census(&handle).unwrap();
    assert_eq!(waiting_on(&woken.threads, word), 200);
    assert_eq!(woken.threads.iter().filter(|thread| before.contains(&key(thread))).count(), 0);
}

#[test]
#[ignore = "needs root"]
fn census_of_who_is_gone() {
    let mut kernel = load(&KernelOptions::default());
    let target = Target::start("sleepers", &["3"]);
    let pid = target.pid();
    let handle = kernel.add_target(pid).unwrap();
    assert!(!kernel.census(&handle).unwrap().threads.is_empty());
    drop(target);
    assert_eq!(kernel.census(&handle).unwrap().threads, []);
    let error = kernel.add_target(pid).unwrap_err();
    assert_eq!(error.to_string(), format!("no process {pid}"));
    kernel.remove_target(&handle);
    assert!(kernel.census(&handle).is_err());
}

/// Prints what ARCHITECTURE.md quotes; the time itself is not tested.
#[test]
#[ignore = "needs root"]
fn census_of_ten_thousand_threads() {
    let mut target = Target::start("sleepers", &["10000"]);
    let word = ready(&mut target);
    println!("before load: {}", resident());
    let (begun, used) = (Instant::now(), cpu_time());
    let mut kernel = load(&KernelOptions::default());
    println!("load {:?}, {:?} of CPU: {}", begun.elapsed(), cpu_time() - used, resident());
    let handle = kernel.add_target(target.pid()).unwrap();
    for _ in 0..5 {
        let (begun, used) = (Instant::now(), cpu_time());
        let census = kernel.census(&handle).unwrap();
        let (took, used) = (begun.elapsed(), cpu_time() - used);
        assert_eq!(waiting_on(&census.threads, word), 10_000);
        println!("census of {} threads: {took:?}, {used:?} of CPU", census.threads.len());
    }
}

/// Of this thread.
fn cpu_time() -> Duration {
    // SAFETY: the kernel fills in the structure, for which zero is a value.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon")).collect()
}
