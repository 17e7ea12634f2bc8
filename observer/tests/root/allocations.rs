//! Tracked allocations of real programs: against what they really kept, and without a trace left behind. Needs root,
//! the eBPF object, Linux 6.6 and a C compiler.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use observer::memory::allocations::provider;
use observer::observe::{KernelSource, Observer, Options};
use observer::process::maps;
use observer::sample::{AllocationSite, Allocations, GrowthSite, Sample};

use crate::programs::c::{Program, USUAL, compile};
use crate::support::observer::{Victim, observer};

/// A breakpoint.
const INT3: u8 = 0xcc;

/// A running `allocator`.
struct Allocator(Program);

impl Allocator {
    fn start(flags: &[&str], arguments: &[&str]) -> Self {
        Self::start_with(flags, arguments, &[])
    }

    fn start_with(flags: &[&str], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = compile("cc", "allocator", &[&USUAL, flags].concat(), directory.path());
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().copied());
        let mut running = Self(Program::start(&mut command, Some(directory)));
        // It has loaded what it needs when it answers.
        running.ask("");
        running
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn ask(&mut self, command: &str) -> Vec<u64> {
        self.0.ask(command).split_whitespace().map(|word| word.parse().unwrap()).collect()
    }
}

fn options() -> Options {
    Options { exact: false, growth: false, retained: false, allocations: Some(64 << 10) }
}

/// Watches for so long; the last moment, and the losses of all.
fn watch(observer: &mut Observer, seconds: f64) -> Sample {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut losses = observer.sample().unwrap().losses;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        observer.drain();
    }
    let mut sample = observer.sample().unwrap();
    for (name, lost) in std::mem::take(&mut sample.losses) {
        *losses.entry(name).or_default() += lost;
    }
    sample.losses = losses;
    sample
}

fn allocations(sample: &Sample) -> &Allocations {
    sample.allocations.as_ref().unwrap_or_else(|| panic!("{:?}", sample.degraded))
}

/// Live bytes that a function asked for, whatever called it.
fn live(found: &Allocations, function: &str) -> f64 {
    let of = |site: &&AllocationSite| site.frames.iter().any(|frame| frame.function.contains(function));
    found.sites.iter().filter(of).map(|site| site.live_bytes as f64).sum()
}

#[track_caller]
fn within(found: f64, truth: f64, share: f64) {
    assert!((found / truth - 1.0).abs() <= share, "{found:.0} is not {truth:.0} within {share}");
}

/// The first byte of each function of the allocator, in the memory of a process; those of the file are without
/// breakpoints.
fn first_bytes(pid: u32) -> Vec<u8> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    bytes_of(pid, |_, address, byte| memory.read_exact_at(byte, address).unwrap())
}

fn stored_bytes(pid: u32) -> Vec<u8> {
    bytes_of(pid, |(file, offset), _, byte| file.read_exact_at(byte, offset).unwrap())
}

fn bytes_of(pid: u32, read: impl Fn((&File, u64), u64, &mut [u8])) -> Vec<u8> {
    let maps = maps::read(pid).unwrap();
    let providers = provider::find(pid, &maps);
    assert!(!providers.is_empty());
    let mut bytes = Vec::new();
    for provider in &providers {
        let name = provider.module.name.as_str();
        for function in &provider.functions {
            let code = maps.iter().find(|map| {
                map.executable
                    && map.path.ends_with(name)
                    && (map.offset..map.offset + map.len()).contains(&function.offset)
            });
            let code = code.expect("its code is mapped");
            let mut byte = [0];
            read(
                (provider.module.file(), function.offset),
                code.start + function.offset - code.offset,
                &mut byte,
            );
            bytes.push(byte[0]);
        }
    }
    bytes
}

#[test]
#[ignore = "needs root"]
fn root_what_is_kept_is_named_with_its_bytes_and_what_is_given_back_is_not() {
    let mut program = Allocator::start(&[], &["3", "60"]);
    let mut observer = Observer::attach(program.pid(), &options(), KernelSource::Load).unwrap();
    observer.sample().unwrap();
    let before = program.ask("");
    let sample = watch(&mut observer, 5.0);
    let after = program.ask("");
    let found = allocations(&sample);
    println!("{found:?}\n{:?}", sample.losses);
    let (small, large) = ((after[0] - before[0]) as f64, (after[1] - before[1]) as f64);
    within(live(found, "keep_small"), small, 0.15);
    within(live(found, "keep_large"), large, 0.15);
    // The healthy churn beside it is large, and nothing of it stays.
    assert!(found.allocated_bytes as f64 > 2.0 * (small + large), "{found:?}");
    assert!(live(found, "churn") < 0.01 * (small + large), "{found:?}");
    assert!(found.frees > 0 && found.allocators == ["libc.so.6"]);
    assert!(found.sites[0].growth_bytes_per_second > 0.0);
    let lost = |name: &str| sample.losses.get(name).copied().unwrap_or(0);
    assert!(lost("allocations_free_ring_full") + lost("allocations_live_full") == 0, "{:?}", sample.losses);
    let main = found.sites[0].frames.iter().any(|frame| frame.function.contains("start_thread"));
    assert!(main, "a whole stack, without frame pointers: {:?}", found.sites[0].frames);
}

#[test]
#[ignore = "needs root"]
fn root_a_healthy_churn_has_no_live_growth() {
    let program = Allocator::start(&[], &["3", "60", "healthy"]);
    let mut observer = Observer::attach(program.pid(), &options(), KernelSource::Load).unwrap();
    let sample = watch(&mut observer, 3.0);
    let found = allocations(&sample);
    println!("{found:?}");
    assert!(found.samples > 50, "{found:?}");
    assert!((found.live_bytes as f64) < 0.01 * found.allocated_bytes as f64, "{found:?}");
}

/// Where the kernel knows sessions, a call that is not sampled has its own return address on the stack, not the
/// kernel's: whoever unwinds it sees its callers.
#[test]
#[ignore = "needs root"]
fn root_a_call_that_is_not_sampled_is_not_stopped_at_its_return() {
    let program = Allocator::start(&[], &["2", "60"]);
    let options = Options { growth: true, ..options() };
    let mut observer = Observer::attach(program.pid(), &options, KernelSource::Load).unwrap();
    let sample = watch(&mut observer, 5.0);
    if allocations(&sample).hook != "uprobe session" {
        println!("this kernel has no sessions: every return stops");
        return;
    }
    let sites = &sample.growth.as_ref().unwrap().sites;
    let bytes = |function: &str| -> u64 {
        let at = |site: &&GrowthSite| site.frames.iter().any(|frame| frame.function == function);
        sites.iter().filter(at).map(|site| site.bytes).sum()
    };
    let (all, kept) =
        (bytes("malloc") + bytes("calloc") + bytes("realloc"), bytes("keep_small") + bytes("keep_large"));
    assert!(kept > 0 && 2 * kept > all, "{kept} of {all}: {sites:#?}");
}

#[test]
#[ignore = "needs root"]
fn root_a_static_program_with_symbols_is_tracked_and_a_stripped_one_says_why_not() {
    let mut program = Allocator::start(&["-static"], &["2", "60"]);
    let mut observer = Observer::attach(program.pid(), &options(), KernelSource::Load).unwrap();
    observer.sample().unwrap();
    let before = program.ask("");
    let sample = watch(&mut observer, 3.0);
    let after = program.ask("");
    within(live(allocations(&sample), "keep_large"), (after[1] - before[1]) as f64, 0.2);
    let stripped = Allocator::start(&["-static", "-s"], &["2", "60"]);
    let mut observer = Observer::attach(stripped.pid(), &options(), KernelSource::Load).unwrap();
    let sample = observer.sample().unwrap();
    assert!(sample.allocations.is_none());
    let said = sample.degraded.iter().find(|degraded| degraded.feature == "allocations").unwrap();
    assert!(said.reason.contains("static and stripped"), "{said:?}");
}

#[test]
#[ignore = "needs root"]
fn root_breakpoints_are_in_one_process_only_and_go_again() {
    let mut program = Allocator::start(&[], &["4", "60"]);
    let neighbour = Allocator::start(&[], &["1", "60"]);
    let clean = stored_bytes(program.pid());
    assert_eq!(first_bytes(program.pid()), clean);
    for _ in 0..20 {
        let mut observer = Observer::attach(program.pid(), &options(), KernelSource::Load).unwrap();
        assert!(observer.sample().unwrap().allocations.is_some());
        assert!(first_bytes(program.pid()).iter().all(|&byte| byte == INT3));
        assert_eq!(
            first_bytes(neighbour.pid()),
            clean,
            "the neighbour shares the library, not its breakpoints"
        );
        drop(observer);
        assert_eq!(first_bytes(program.pid()), clean);
    }
    let before = program.ask("");
    std::thread::sleep(Duration::from_millis(100));
    assert!(program.ask("") > before, "it runs on");
}

#[test]
#[ignore = "needs root"]
fn root_breakpoints_go_when_the_observer_is_killed_and_from_a_forked_child() {
    let mut program = Allocator::start(&[], &["3", "60"]);
    let clean = stored_bytes(program.pid());
    let pid = program.pid().to_string();
    let mut command = observer(&["attach", &pid, "--allocations", "--plain", "--duration", "60s"]);
    let mut observer = Victim::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    wait_until(|| first_bytes(program.pid()).iter().all(|&byte| byte == INT3));
    // A copy of the memory has the breakpoints too, while it allocates.
    let child = program.ask("f")[0] as u32;
    std::thread::sleep(Duration::from_millis(300));
    assert!(Path::new(&format!("/proc/{child}/exe")).exists());
    observer.0.kill().unwrap();
    observer.0.wait().unwrap();
    wait_until(|| first_bytes(program.pid()) == clean);
    wait_until(|| first_bytes(child) == clean);
    let before = program.ask("");
    std::thread::sleep(Duration::from_millis(100));
    assert!(program.ask("") > before, "it runs on");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root"]
fn root_other_allocators_are_found_where_they_are_loaded_before_libc() {
    for (library, name) in [
        ("libjemalloc.so.2", "libjemalloc"),
        ("libtcmalloc_minimal.so.4", "libtcmalloc"),
        ("libmimalloc.so.2", "libmimalloc"),
    ] {
        let path = format!("/usr/lib/{}-linux-gnu/{library}", std::env::consts::ARCH);
        assert!(Path::new(&path).exists(), "{path} (install: cargo xtask setup)");
        let mut program = Allocator::start_with(&[], &["2", "60"], &[("LD_PRELOAD", &path)]);
        let mut observer = Observer::attach(program.pid(), &options(), KernelSource::Load).unwrap();
        observer.sample().unwrap();
        let before = program.ask("");
        let sample = watch(&mut observer, 3.0);
        let after = program.ask("");
        let found = allocations(&sample);
        println!("{name}: {found:?}");
        assert!(found.allocators[0].starts_with(name), "{:?}", found.allocators);
        within(live(found, "keep_large"), (after[1] - before[1]) as f64, 0.2);
        within(live(found, "keep_small"), (after[0] - before[0]) as f64, 0.25);
        assert!(live(found, "churn") < 0.03 * found.live_bytes as f64, "{name}: {found:?}");
    }
}
