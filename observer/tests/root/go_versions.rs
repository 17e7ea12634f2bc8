//! Go versions that observer does not know: real programs that say they are of one, small and large.
//!
//! Ring two: needs ptrace access and the toolchains of `cargo xtask setup`.

use std::collections::BTreeMap;
use std::path::Path;

use observer::process::maps;
use observer::process::memory::RemoteMemory;
use observer::runtime::go::addresses::Image;
use observer::runtime::go::layout::Layout;
use observer::runtime::go::{GoError, GoReader, choice};

use crate::goroutines::{Shape, agreement, parse_dump};
use crate::programs::go::{Build, Program, Running, toolchains};

/// The program that blocks in every way, pretending to be of a version that observer does not know.
fn unknown_version(
    go: &Path,
    build: Build,
    bytes: u64,
) -> (tempfile::TempDir, Running, BTreeMap<Shape, u64>) {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::build(go, "shapes", build, directory.path());
    program.pretend(&format!("go1.{}", minor(go)), "go1.28");
    program.pad(bytes);
    let dump_path = directory.path().join("dump");
    let mut running = program.start(&[dump_path.to_str().unwrap(), "40"]);
    running.wait_for_line("ready");
    let dump = parse_dump(&std::fs::read_to_string(&dump_path).unwrap());
    (directory, running, dump)
}

fn minor(go: &Path) -> u32 {
    let name = go.file_name().unwrap().to_str().unwrap();
    name.split('.').nth(1).unwrap().parse().unwrap()
}

const LARGE: u64 = 700 << 20;
/// Half of what a sidecar has.
const MAX_PEAK: u64 = 64 << 20;

#[test]
#[ignore = "needs root"]
fn root_an_unknown_version_is_read_with_the_newest_layout_that_holds_else_with_its_own() {
    let newest = Layout::newest().unwrap();
    for go in toolchains() {
        let what = go.display();
        let (_directory, running, dump) = unknown_version(&go, Build::Plain, LARGE);
        let mut reader = GoReader::open(running.pid()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(reader.version().starts_with("go1.28"), "{}", reader.version());
        let sample = reader.sample(0.0).unwrap();
        let (agree, all) = agreement(&sample, &dump);
        assert!(all > 2000 && agree as f64 >= 0.999 * all as f64, "{what}: {agree} of {all} agree");
        let peak = peak_of_a_snapshot(running.pid());
        assert!(peak < MAX_PEAK, "{what}: {} MiB", peak >> 20);
        // What is borrowed is said, in words that name both; its own needs none.
        let said: Vec<&str> = sample.degraded.iter().map(|lack| lack.reason.as_str()).collect();
        eprintln!("{what}: {agree} of {all} agree; peak {} MiB; {said:?}", peak >> 20);
        if minor(&go) == newest.minor {
            let wanted = format!("read with those of go1.{}", newest.minor);
            assert!(
                said.iter().any(|reason| reason.contains("go1.28") && reason.contains(&wanted)),
                "{said:?}"
            );
        } else {
            assert!(said.is_empty(), "{what}: {said:?}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn root_an_unknown_version_without_debug_information_is_read_right_or_refused() {
    // The newest, and the one before it, which differs in one offset.
    for go in toolchains().into_iter().rev().take(2) {
        let what = go.display();
        let (_directory, running, dump) = unknown_version(&go, Build::StrippedPie, LARGE);
        match GoReader::open(running.pid()) {
            Ok(mut reader) => {
                assert_eq!(Some(minor(&go)), Layout::newest().map(|newest| newest.minor));
                let (agree, all) = agreement(&reader.sample(0.0).unwrap(), &dump);
                assert!(all > 2000 && agree as f64 >= 0.999 * all as f64, "{what}: {agree} of {all} agree");
            }
            Err(error) => {
                assert_ne!(Some(minor(&go)), Layout::newest().map(|newest| newest.minor), "{error}");
                assert!(matches!(error, GoError::Unsupported { .. }), "{what}: {error}");
            }
        }
    }
}

/// Every layout of the table against programs of every version: one holds where all that is read lies alike.
#[test]
#[ignore = "needs root"]
fn root_a_layout_holds_in_programs_that_have_it_and_in_no_others() {
    // The rest of them has never moved, or is not read.
    let read = |layout: &Layout| {
        let (g, hchan, module, type_) = (&layout.g, &layout.hchan, &layout.moduledata, &layout.type_);
        (
            [g.atomicstatus, g.goid, g.tracking_seq, g.waitsince, g.waitreason],
            [g.syscallsp, g.syscallpc, g.gopc, g.startpc, g.waiting],
            [layout.sudog.elem, layout.sudog.c, hchan.closed, hchan.elemtype],
            [module.types, module.etypes, module.gofunc, type_.str_, type_.tflag],
        )
    };
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let program = Program::build(&go, "shapes", Build::Plain, directory.path());
        let mut running = program.start(&[directory.path().join("dump").to_str().unwrap(), "40"]);
        running.wait_for_line("ready");
        let memory = RemoteMemory::new(running.pid());
        let image = Image::find(running.pid(), memory, &maps::read(running.pid()).unwrap()).unwrap().unwrap();
        let own = Layout::table().iter().find(|layout| layout.minor == minor(&go)).unwrap();
        for layout in Layout::table() {
            let anchors = image.anchor(memory, layout).unwrap();
            let checked = anchors.and_then(|anchors| choice::check(memory, layout, &anchors).unwrap());
            let alike = read(layout) == read(own);
            let what = format!("{} read as 1.{}: {checked:?}", go.display(), layout.minor);
            assert_eq!(checked.is_some(), alike, "{what}");
            assert!(checked.is_none_or(|checked| checked.goroutines > 100 && checked.channels > 2), "{what}");
        }
    }
}

/// What a snapshot takes at its peak. The kernel half is left out: it takes as much for every target.
fn peak_of_a_snapshot(pid: u32) -> u64 {
    let mut observer = std::process::Command::new(env!("CARGO_BIN_EXE_observer"))
        .args(["snapshot", &pid.to_string(), "--no-ebpf", "--format", "json"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The peak of a program that has ended is gone with it: the last one seen.
    let mut peak = 0;
    let status = loop {
        peak = peak_bytes(observer.id()).unwrap_or(peak);
        if let Some(status) = observer.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!(status.success() && peak > 0, "{status}");
    peak
}

fn peak_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
