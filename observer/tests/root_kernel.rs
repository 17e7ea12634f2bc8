//! Ring two: the eBPF programs against real processes. Needs root, the eBPF object and a C compiler.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use observer::kernel::{CensusOptions, Change, Fault, Kernel, KernelOptions, ThreadRecord};
use observer::sample::Waits;

/// Where a test that runs again as somebody else finds the programs built.
const PROGRAMS: &str = "OBSERVER_TEST_PROGRAMS";

/// A C program of `xtask/targets/c`, built with frame pointers.
fn build(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return PathBuf::from(folder).join(name);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/c").join(name).join("main.c");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Tests run side by side: each builds under a name of its own and moves it into place.
    let own = binary.with_extension(format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-"));
    let status = Command::new("cc")
        .args(["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"])
        .arg(&own)
        .arg(source)
        .status()
        .expect("cc runs (set up with `cargo xtask setup`)");
    assert!(status.success(), "cc {name}");
    fs::rename(&own, &binary).unwrap();
    binary
}

/// A running target; killed when dropped.
struct Target {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Target {
    fn start(name: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(build(name)).args(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the target ended");
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(options: &KernelOptions) -> Kernel {
    Kernel::load(options).unwrap_or_else(|error| panic!("{error} (ring two runs as root)"))
}

fn proc_tids(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Those of a census that wait on the futex at `address`.
fn waiting_on(threads: &[ThreadRecord], address: u64) -> usize {
    let futex = libc::SYS_futex.cast_unsigned();
    threads.iter().filter(|thread| thread.syscall == Some(futex) && thread.arguments[0] == address).count()
}

fn ready(target: &mut Target) -> u64 {
    u64::from_str_radix(target.line().strip_prefix("ready ").unwrap(), 16).unwrap()
}

#[test]
#[ignore = "needs root"]
fn census_agrees_with_proc_and_sees_who_slept_before() {
    let mut target = Target::start("sleepers", &["200"]);
    let word = ready(&mut target);
    let mut kernel = load(&KernelOptions::default());
    let handle = kernel.add_target(target.pid()).unwrap();
    assert_eq!((handle.pid(), handle.namespace_pid()), (target.pid(), target.pid()));
    let census = kernel.census(&handle, CensusOptions::default()).unwrap();
    let tids: BTreeSet<u32> = census.threads.iter().map(|thread| thread.tid).collect();
    assert_eq!(tids, proc_tids(target.pid()));
    assert_eq!(waiting_on(&census.threads, word), 200);

    let sleepers: Vec<_> = census.threads.iter().filter(|thread| thread.tid != target.pid()).collect();
    for thread in &sleepers {
        assert!(thread.is_sleeping() && !thread.truncated && !thread.unreadable, "{thread:?}");
        assert_eq!(thread.namespace_tid, thread.tid);
        assert_eq!(thread.comm, "sleepers");
        // libc's `syscall` has no frame: its caller is lost, the rest of our own frames is there.
        assert!(thread.frames.len() >= 2, "{thread:?}");
        assert_eq!(thread.frames, sleepers[0].frames);
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
    let again = kernel.census(&handle, CensusOptions::default()).unwrap();
    let key = |thread: &ThreadRecord| (thread.tid, thread.sp, thread.voluntary_switches);
    let before: BTreeSet<_> = sleepers.iter().map(|thread| key(thread)).collect();
    assert_eq!(again.threads.iter().filter(|thread| before.contains(&key(thread))).count(), 200);
    target.say("wake");
    std::thread::sleep(Duration::from_millis(300));
    let woken = kernel.census(&handle, CensusOptions { stack_bytes: 256, ..Default::default() }).unwrap();
    assert_eq!(waiting_on(&woken.threads, word), 200);
    assert_eq!(woken.threads.iter().filter(|thread| before.contains(&key(thread))).count(), 0);
    assert!(woken.threads.iter().all(|thread| !thread.stack.is_empty()));
}

#[test]
#[ignore = "needs root"]
fn census_of_who_is_gone() {
    let mut kernel = load(&KernelOptions::default());
    let target = Target::start("sleepers", &["3"]);
    let pid = target.pid();
    let handle = kernel.add_target(pid).unwrap();
    assert!(!kernel.census(&handle, CensusOptions::default()).unwrap().threads.is_empty());
    drop(target);
    assert_eq!(kernel.census(&handle, CensusOptions::default()).unwrap().threads, []);
    let error = kernel.add_target(pid).unwrap_err();
    assert_eq!(error.to_string(), format!("no process {pid}"));
    kernel.remove_target(&handle);
    assert!(kernel.census(&handle, CensusOptions::default()).is_err());
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
        let census = kernel.census(&handle, CensusOptions::default()).unwrap();
        let (took, used) = (begun.elapsed(), cpu_time() - used);
        assert_eq!(waiting_on(&census.threads, word), 10_000);
        println!("census of {} threads: {took:?}, {used:?} of CPU", census.threads.len());
    }
}

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
    assert_eq!(kernel.losses().get("waits_threads_full"), None);
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a child of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

#[test]
#[ignore = "needs root"]
fn growth_is_attributed_to_the_function_that_touched_it() {
    let mut kernel = load(&KernelOptions::default());
    let mut target = Target::start("grow", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    let before = resident_of(target.pid());
    kernel.drain_faults();
    target.say("keep 256");
    target.line();
    let faults = kernel.drain_faults();
    let grown = resident_of(target.pid()) - before;
    assert!(faults.iter().all(|fault| fault.pid == target.pid() && !fault.frames.is_empty()));
    let sampled: u64 = faults.iter().map(|fault| fault.weight * 4096).sum();
    let off = (sampled as f64 - grown as f64).abs() / grown as f64;
    assert!(off < 0.05, "{sampled} sampled, {grown} grown");
    // touch <- keep_here <- main, whatever their addresses: one stack for nearly all.
    let mut stacks = std::collections::BTreeMap::<&[u64], u64>::new();
    for fault in &faults {
        *stacks.entry(&fault.frames[1..]).or_default() += fault.weight * 4096;
    }
    let largest = stacks.values().max().copied().unwrap();
    assert!(largest as f64 > 0.9 * sampled as f64, "{largest} of {sampled}");
    assert!(in_order_of_pages(&faults));

    // With a copy of the stack, when asked for.
    kernel.copy_stacks(&handle, true).unwrap();
    target.say("keep 32");
    target.line();
    let faults = kernel.drain_faults();
    assert!(!faults.is_empty() && faults.iter().all(|fault| fault.stack.len() >= 1024), "{}", faults.len());
    // The frame record that the chain ends at lies in the copy, with the return address beside it.
    let fault = &faults[faults.len() / 2];
    let place = (fault.bp - fault.sp) as usize;
    let saved = u64::from_ne_bytes(fault.stack[place + 8..place + 16].try_into().unwrap());
    assert_eq!(saved, fault.frames[1]);
    assert_eq!(kernel.losses().get("growth_ring_full"), None);
}

/// A fresh mapping that is touched from its start: samples rise with time.
fn in_order_of_pages(faults: &[Fault]) -> bool {
    let main = faults.iter().filter(|fault| fault.frames[1..] == faults[faults.len() / 2].frames[1..]);
    let mut addresses: Vec<_> = main.map(|fault| (fault.time, fault.address)).collect();
    addresses.sort_unstable();
    addresses.is_sorted_by_key(|&(_, address)| address)
}

fn resident_of(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
#[ignore = "needs root"]
fn losses_are_counted_when_a_ring_is_tiny() {
    let mut kernel = load(&KernelOptions {
        growth_ring_bytes: 4096,
        lifecycle_ring_bytes: 4096,
        ..KernelOptions::default()
    });
    let mut target = Target::start("grow", &[]);
    ready(&mut target);
    kernel.add_target(target.pid()).unwrap();
    for _ in 0..200 {
        target.say("exec");
        ready(&mut target);
    }
    target.say("churn 200");
    target.line();
    let kept = kernel.drain_faults().len() as u64;
    let events = kernel.lifecycle();
    let losses = kernel.losses();
    // Every sample is either kept or counted as lost: 256 faults a MiB, one of 61 sampled.
    let samples = kept + losses["growth_ring_full"];
    assert!((800..1500).contains(&samples), "{kept} {losses:?}");
    assert_eq!(events.len() as u64 + losses["lifecycle_ring_full"], 200, "{losses:?}");
    assert!(kernel.losses().is_empty(), "counted since the last call only");
}

#[test]
#[ignore = "needs root"]
fn lifecycle_tells_of_exec_fork_and_exit() {
    let mut kernel = load(&KernelOptions::default());
    let mut target = Target::start("grow", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    target.say("exec");
    ready(&mut target);
    target.say("fork");
    target.line();
    let changes: Vec<_> = kernel.lifecycle().iter().map(|event| (event.pid, event.change)).collect();
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
    let events = kernel.lifecycle();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].pid, events[0].change), (pid, Change::Exit { status: 7 << 8 }));

    let mut threads = Target::start("waits", &[]);
    ready(&mut threads);
    let other = kernel.add_target(threads.pid()).unwrap();
    for _ in 0..5 {
        threads.say("refuse 1");
        threads.line();
    }
    let turnover = kernel.threads(&other).unwrap();
    assert_eq!((turnover.created, turnover.exited), (5, 5));
    assert_eq!(kernel.threads(&handle).unwrap().created, 0);
}

#[test]
#[ignore = "needs root"]
fn exact_counts_every_byte_and_every_wait() {
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
            |list: &[(&str, u64)]| list.iter().map(|&(name, bytes)| (name.to_owned(), bytes)).collect();
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

    let mut target = Target::start("waits", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    target.say("refuse 1000");
    target.line();
    target.say("timed 7 2");
    target.line();
    let waits = kernel.exact_waits(&handle).unwrap();
    assert_eq!((waits.refused, waits.timed_out, waits.failed), (1000, 7, 0), "{waits:?}");
    target.say("timed 1 300");
    std::thread::sleep(Duration::from_millis(100));
    signal(target.pid(), libc::SIGSTOP);
    signal(target.pid(), libc::SIGCONT);
    target.line();
    let waits = kernel.exact_waits(&handle).unwrap();
    assert_eq!((waits.timed_out, waits.failed), (8, 0), "goes on after a signal: {waits:?}");
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
        let census = kernel.census(handle, CensusOptions::default()).unwrap();
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

/// Runs tests of this file again under another command, with the programs built for them.
fn run_again(command: &mut Command, tests: &[&str]) {
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    for name in ["sleepers", "waits", "grow"] {
        fs::copy(build(name), folder.path().join(name)).unwrap();
    }
    let binary = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let output = command
        .arg(&binary)
        .args(["--ignored", "--exact", "--test-threads", "1"])
        .args(tests)
        .env(PROGRAMS, folder.path())
        .current_dir("/")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains(&format!("{} passed", tests.len())), "{told}");
}

const DEFAULT_HOOKS: [&str; 5] = [
    "census_agrees_with_proc_and_sees_who_slept_before",
    "census_of_who_is_gone",
    "waits_are_counted_by_time_and_once_though_a_signal_interrupts",
    "growth_is_attributed_to_the_function_that_touched_it",
    "lifecycle_tells_of_exec_fork_and_exit",
];

#[test]
#[ignore = "needs root"]
fn all_of_it_inside_a_pid_namespace() {
    run_again(Command::new("unshare").args(["--pid", "--fork", "--mount-proc"]), &DEFAULT_HOOKS);
}

#[test]
#[ignore = "needs root"]
fn three_capabilities_are_enough() {
    let capabilities = "+bpf,+perfmon,+sys_ptrace";
    run_again(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
            .arg(format!("--inh-caps=-all,{capabilities}"))
            .arg(format!("--ambient-caps=-all,{capabilities}"))
            .arg(format!("--bounding-set=-all,{capabilities}")),
        &DEFAULT_HOOKS,
    );
}

#[test]
#[ignore = "needs root"]
fn without_capabilities_the_error_names_them() {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
    ]);
    run_again(command.arg("--inh-caps=-all"), &["is_refused"]);
}

/// The other half of the test above: does nothing unless run by it.
#[test]
#[ignore = "needs root"]
fn is_refused() {
    if std::env::var_os(PROGRAMS).is_some() {
        let error = Kernel::load(&KernelOptions::default()).err().expect("refused").to_string();
        assert!(error.contains("CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
#[ignore = "needs root"]
fn a_target_inside_a_pid_namespace_of_its_own() {
    let mut kernel = load(&KernelOptions::default());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(build("waits"));
    let mut unshare = Target::spawn(&mut command);
    ready(&mut unshare);
    let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
    let pid: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let handle = kernel.add_target(pid).unwrap();
    assert_eq!((handle.pid(), handle.namespace_pid()), (pid, 1));
    unshare.say("timed 4 20");
    unshare.line();
    assert_eq!(kernel.waits(&handle).unwrap().ended, 4);
    let census = kernel.census(&handle, CensusOptions::default()).unwrap();
    assert_eq!(census.threads.len(), 1);
    assert_eq!((census.threads[0].tid, census.threads[0].namespace_tid), (pid, 1));
}

#[test]
#[ignore = "needs root"]
fn features_say_what_is_on_and_why_something_is_not() {
    let kernel = load(&KernelOptions::default());
    for name in ["census", "waits", "growth", "lifecycle"] {
        assert!(kernel.features().is_on(name), "{:?}", kernel.features().get(name));
    }
    assert!(!kernel.features().is_on("exact_waits"));
    assert_eq!(kernel.features().degraded(), []);
    let exact = load(&KernelOptions { exact: true, ..KernelOptions::default() });
    assert!(exact.features().is_on("exact_waits") && exact.features().is_on("mapped"));
    for refusal in exact.features().list.iter().flat_map(|feature| &feature.refused) {
        assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty(), "{refusal:?}");
        assert_eq!(refusal.reason.lines().count(), 1, "{refusal:?}");
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
