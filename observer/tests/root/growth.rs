//! Memory growth of a real C program by the stacks that touched it: needs root, the eBPF object and a C compiler.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use observer::kernel::{KernelOptions, Probes, TargetHandle};
use observer::memory::growth::{GrowthReader, GrowthSites, Seen};
use observer::memory::usage::ProcessReader;
use observer::process::code::RuntimeCode;
use observer::symbol::native::Native;
use observer::unwind::dwarf::CallFrames;

use crate::programs::another_user::{as_nobody, without_override};
use crate::programs::c::{Program, USUAL, compile};

const MIB: u64 = 1 << 20;

/// A running `grower`, and what watches it.
struct Grower {
    program: Program,
    kernel: Probes,
    _target: TargetHandle,
    growth: GrowthReader,
}

fn grower(flags: &[&str]) -> Program {
    grower_by(Command::new, flags)
}

fn grower_by(start: impl FnOnce(PathBuf) -> Command, flags: &[&str]) -> Program {
    let directory = tempfile::tempdir().unwrap();
    let program = compile("cc", "grower", &[&USUAL, flags].concat(), directory.path());
    Program::start(&mut start(program), Some(directory))
}

impl Grower {
    fn start(flags: &[&str]) -> Self {
        Self::watch(grower(flags))
    }

    fn watch(program: Program) -> Self {
        let pid = program.pid();
        let mut kernel = Probes::load(&KernelOptions::default()).unwrap();
        let target = kernel.add_target(pid).unwrap();
        kernel.copy_stacks(&target, true).unwrap();
        let growth = GrowthReader::open(
            pid,
            &RuntimeCode::default(),
            Box::new(Native::new(pid)),
            Box::new(CallFrames::new(pid)),
        )
        .unwrap();
        Self { program, kernel, _target: target, growth }
    }

    /// Gives a command, and takes samples in while it is carried out.
    fn tell(&mut self, command: &str) {
        let (kernel, growth, program) = (&mut self.kernel, &mut self.growth, &mut self.program);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let done = &done;
            scope.spawn(move || {
                let answer = program.ask(command);
                done.store(true, Ordering::Release);
                assert_eq!(answer, "ok\n");
            });
            loop {
                let last = done.load(Ordering::Acquire);
                let faults = kernel.drain().faults;
                growth.record(&faults.iter().map(Seen::from).collect::<Vec<_>>());
                if last {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
}

/// Bytes, and by which calls a tenth or more of them, of the sites below a function. A thread that runs it touches its
/// own stack there, too, and one sample of that stands for as many pages as any.
fn at(found: &GrowthSites, function: &str) -> (u64, Vec<String>) {
    let sites = found.sites.iter().filter(|site| site.frames.iter().any(|frame| frame.function == function));
    let mut by_call: BTreeMap<String, u64> = BTreeMap::new();
    for site in sites {
        *by_call.entry(site.via.to_string()).or_default() += site.bytes;
    }
    let bytes: u64 = by_call.values().sum();
    let via = by_call.into_iter().filter(|(_, made)| made * 10 > bytes).map(|(call, _)| call).collect();
    (bytes, via)
}

/// One page in 61 is sampled: of 128 MiB some 540, so a fifth off is far beyond chance.
fn about(bytes: u64, mib: u64) -> bool {
    bytes.abs_diff(mib * MIB) < mib * MIB / 5
}

fn finds_what_grew(mut target: Grower) {
    let mut memory = ProcessReader::open(target.program.pid()).unwrap();
    let before = memory.memory().unwrap().anonymous_bytes;
    for command in ["small 128", "large 128", "arena 60", "map 128", "file 128", "churn 512"] {
        target.tell(command);
    }
    let grown = memory.memory().unwrap().anonymous_bytes - before;
    let found = target.growth.sample(0.0);
    assert!(found.total_bytes.abs_diff(grown) < grown / 10, "{} of {grown}", found.total_bytes);
    let expected = [
        ("leak_large", 128, &["mmap"][..]),
        ("leak_in_arena", 60, &["mprotect"]),
        ("leak_map", 128, &["mmap"]),
        ("leak_read", 128, &["mmap"]),
        ("leak_small", 188, &["brk", "mprotect"]),
    ];
    for (function, mib, calls) in expected {
        let (bytes, via) = at(&found, function);
        assert!(about(bytes, mib), "{function}: {} of {mib} MiB", bytes / MIB);
        assert_eq!(via, calls, "{function}");
    }
    assert!(at(&found, "churn").0 < 2 * MIB, "touched is not grown");

    // Half of the large blocks go: 256 of 512 KiB each.
    target.tell("free 128");
    let later = target.growth.sample(60.0);
    assert!(about(at(&later, "leak_large").0, 64), "{} MiB left", at(&later, "leak_large").0 / MIB);
    assert!(about(at(&later, "leak_map").0, 128));
}

#[test]
#[ignore = "needs root"]
fn root_finds_what_grew_without_frame_pointers() {
    finds_what_grew(Grower::start(&[]));
}

#[test]
#[ignore = "needs root"]
fn root_finds_what_grew_in_a_static_program() {
    finds_what_grew(Grower::start(&["-static"]));
}

#[test]
#[ignore = "needs root"]
fn root_finds_what_grew_by_mapping_where_pages_may_not_be_read() {
    let target = without_override(|| Grower::watch(grower_by(as_nobody, &[])));
    let why = target.growth.coarse().expect("the page map is another user's");
    assert_eq!(why.kind(), std::io::ErrorKind::PermissionDenied);
    finds_what_grew(target);
}

#[test]
#[ignore = "needs root"]
fn root_follows_memory_that_the_kernel_moves() {
    let mut target = Grower::start(&[]);
    target.tell("realloc 128");
    let found = target.growth.sample(0.0);
    let (bytes, _) = at(&found, "leak_realloc");
    assert!(about(bytes, 128), "{} of 128 MiB", bytes / MIB);
}

#[test]
#[ignore = "needs root"]
fn root_weighs_a_fault_by_what_it_brought() {
    // 512 MiB may be 256 faults, of which few are sampled, and fewer while others on the machine fault much: so more
    // than one try. Counted as small pages they never come to more than some MiB.
    let mut tries = Vec::new();
    for _ in 0..8 {
        let mib = huge_growth() / MIB;
        if mib >= 64 {
            return;
        }
        tries.push(mib);
    }
    panic!("{tries:?} of 512 MiB");
}

fn huge_growth() -> u64 {
    let mut target = Grower::start(&[]);
    // Quiet at first, so that the period becomes short.
    for _ in 0..50 {
        target.tell("small 0");
        std::thread::sleep(Duration::from_millis(200));
        target.kernel.drain();
        if target.kernel.sample_period().is_some_and(|period| period <= 17) {
            break;
        }
    }
    target.tell("huge 512");
    at(&target.growth.sample(0.0), "leak_huge").0
}

/// What `snapshot --growth` writes of a program that grows all the while.
fn snapshot(format: &str) -> Vec<u8> {
    // Watched by the program that is tested, not by us.
    let mut target = grower(&[]);
    let pid = target.pid().to_string();
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                writeln!(target.commands, "small 1\nmap 1").unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let written = Command::new(env!("CARGO_BIN_EXE_observer"))
            .args(["snapshot", &pid, "--growth", "3s", "--format", format])
            .output()
            .unwrap();
        done.store(true, Ordering::Release);
        written
    });
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    written.stdout
}

#[test]
#[ignore = "needs root"]
fn root_snapshot_writes_what_grew_while_it_watched() {
    let folded = String::from_utf8(snapshot("folded")).unwrap();
    for function in ["leak_small", "leak_map"] {
        let lines = folded.lines().filter(|line| line.contains(&format!(";{function}")));
        let bytes: u64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        assert!(bytes > 5 * MIB, "{function}: {bytes} bytes in\n{folded}");
    }
    let json: serde_json::Value = serde_json::from_slice(&snapshot("json")).unwrap();
    assert!(json["growth"]["sites"][0]["bytes_per_second"].as_f64().unwrap() > 1e6, "{}", json["growth"]);
    let drawn = String::from_utf8(snapshot("svg")).unwrap();
    assert!(drawn.contains("<svg") && drawn.contains("leak_small"));
    let text = String::from_utf8(snapshot("text")).unwrap();
    assert!(text.contains("by mmap: leak_map") && text.contains("one page fault in"), "{text}");
}
