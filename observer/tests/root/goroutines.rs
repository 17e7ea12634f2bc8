//! Goroutines read from outside against the process's own dump of them, on every Go toolchain there is.
//!
//! Ring two: needs ptrace access and the toolchains of `cargo xtask setup`.

use std::collections::BTreeMap;
use std::path::Path;

use observer::runtime::go::{GoError, GoReader};
use observer::runtime::interface::Tasks;
use observer::sample::Group;

use crate::programs::go::{Build, Program, toolchains};

/// What a dump and a sample must agree on about a goroutine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// The wait reason, or the state where there is none.
    reason: String,
    /// Function, file and line.
    frames: Vec<String>,
    created_by: String,
}

/// Parses a dump of all goroutines, without the one that wrote it.
pub fn parse_dump(text: &str) -> BTreeMap<Shape, u64> {
    let mut shapes = BTreeMap::new();
    for goroutine in text.trim().split("\n\n").skip(1) {
        let mut lines = goroutine.lines();
        let header = lines.next().unwrap();
        let (_, reason) = header.split_once('[').unwrap_or_else(|| panic!("no header: {header}"));
        let (reason, _) = reason.rsplit_once(']').unwrap();
        let reason = reason.split(',').next().unwrap().to_owned();
        let mut frames = Vec::new();
        let mut created_by = String::new();
        while let Some(line) = lines.next() {
            if line.starts_with("...") {
                frames.push("...".to_owned());
                continue;
            }
            let place = lines.next().unwrap().trim();
            let place = place.split(" +0x").next().unwrap();
            if let Some(creator) = line.strip_prefix("created by ") {
                let creator = creator.split(" in goroutine ").next().unwrap();
                created_by = format!("{creator} {place}");
            } else {
                let (function, _) = line.rsplit_once('(').unwrap();
                frames.push(format!("{function} {place}"));
            }
        }
        *shapes.entry(Shape { reason, frames, created_by }).or_default() += 1;
    }
    shapes
}

fn place(function: &str, file: Option<&str>, line: Option<u32>) -> String {
    format!("{function} {}:{}", file.unwrap_or("?"), line.unwrap_or(0))
}

/// What a dump would say of a group: it prints 50 frames from either end of a deep stack.
fn shape_of(group: &Group) -> Shape {
    let mut frames: Vec<String> =
        group.frames.iter().map(|frame| place(&frame.function, frame.file.as_deref(), frame.line)).collect();
    if frames.len() > 100 {
        let outermost = frames.split_off(frames.len() - 50);
        frames.truncate(50);
        frames.push("...".to_owned());
        frames.extend(outermost);
    }
    let created_by = group.created_by.as_ref();
    Shape {
        reason: group.reason().to_owned(),
        frames,
        created_by: created_by
            .map(|creator| place(&creator.function, creator.file.as_deref(), creator.line))
            .unwrap_or_default(),
    }
}

/// Goroutines of the dump that the sample has too, and all of them; what differs is printed.
pub fn agreement(sample: &Tasks, dump: &BTreeMap<Shape, u64>) -> (u64, u64) {
    let mut seen: BTreeMap<Shape, u64> = BTreeMap::new();
    for group in &sample.groups {
        *seen.entry(shape_of(group)).or_default() += group.count;
    }
    let (mut agree, mut all) = (0, 0);
    for (shape, &count) in dump {
        let found = seen.get(shape).copied().unwrap_or(0);
        agree += found.min(count);
        all += count;
        if found < count {
            eprintln!("dump has {count}, sample {found} of {shape:#?}");
        }
    }
    for (shape, &count) in &seen {
        let expected = dump.get(shape).copied().unwrap_or(0);
        if count > expected {
            eprintln!("sample has {count}, dump {expected} of {shape:#?}");
        }
    }
    (agree, all)
}

fn check_shapes(go: &Path, build: Build) {
    let what = format!("{} {build:?}", go.display());
    let directory = tempfile::tempdir().unwrap();
    let program = Program::build(go, "shapes", build, directory.path());
    let dump_path = directory.path().join("dump");
    let mut running = program.start(&[dump_path.to_str().unwrap(), "40"]);
    running.wait_for_line("ready");
    let dump = parse_dump(&std::fs::read_to_string(&dump_path).unwrap());
    assert!(dump.len() > 60, "{what}: {} shapes", dump.len());

    let mut reader = GoReader::open(running.pid()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let sample = reader.sample(0.0).unwrap();
    let (agree, all) = agreement(&sample, &dump);
    eprintln!("{what}: {agree} of {all} agree; {} goroutines, losses {:?}", sample.alive, sample.losses);
    assert!(all > 2000, "{what}: only {all} goroutines");
    assert!(agree as f64 >= 0.999 * all as f64, "{what}: {agree} of {all} goroutines agree");
    assert_eq!(sample.members_left_out, 0);

    check_objects(&sample, &what);

    // Nothing moves, so a second look changes nothing but the age.
    let again = reader.sample(5.0).unwrap();
    for (first, second) in sample.groups.iter().zip(&again.groups) {
        assert_eq!((first.id, first.count), (second.id, second.count));
        assert_eq!((second.joined, second.left), (0, 0), "{second:#?}");
        if second.state == "waiting" {
            assert!(second.oldest_wait_seconds.is_some_and(|age| age >= 5.0), "{second:#?}");
        }
    }
    // Another reader names the groups the same.
    let other = GoReader::open(running.pid()).unwrap().sample(0.0).unwrap();
    let ids = |sample: &Tasks| sample.groups.iter().map(|group| group.id).collect::<Vec<_>>();
    assert_eq!(ids(&other), ids(&sample));
}

/// Channels with their types, and since 1.26 locks.
fn check_objects(sample: &Tasks, what: &str) {
    let find = |reason: &str, kind: &str, element: Option<&str>| {
        sample
            .groups
            .iter()
            .filter(|group| group.wait_reason == reason)
            .filter_map(|group| Some((group, group.waits_on.as_ref()?)))
            .find(|(_, waits_on)| waits_on.kind == kind && waits_on.element_type.as_deref() == element)
            .unwrap_or_else(|| panic!("{what}: no group in {reason} on {kind} of {element:?}"))
    };
    let (_, own) = find("chan send", "channel", Some("*main.quote"));
    assert_eq!((own.objects, own.capacity), (40, Some(0)), "{what}: {own:?}");
    assert_eq!(own.note.as_deref(), Some("one sender each, no receiver"));
    let (_, full) = find("chan send", "channel", Some("map[string]main.quote"));
    assert_eq!((full.objects, full.capacity), (40, Some(2)), "{what}: {full:?}");
    assert!(full.note.as_deref().is_some_and(|note| note.contains("buffer full")), "{what}: {full:?}");
    let (_, shared) = find("chan send", "channel", Some("error"));
    assert!(shared.objects == 1 && shared.address.is_some(), "{what}: {shared:?}");
    if what.contains("1.26") || what.contains("1.27") {
        let (_, mutex) = find("sync.Mutex.Lock", "mutex", None);
        assert!(mutex.objects == 1 && mutex.address.is_some(), "{what}: {mutex:?}");
        find("sync.WaitGroup.Wait", "waitgroup", None);
    }
}

#[test]
#[ignore = "needs root"]
fn root_goroutines_that_come_and_go_do_not_disturb_those_that_stay() {
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let program = Program::build(&go, "shapes", Build::Plain, directory.path());
        let dump_path = directory.path().join("dump");
        let mut running = program.start(&[dump_path.to_str().unwrap(), "40", "50"]);
        running.wait_for_line("ready");
        let dump = parse_dump(&std::fs::read_to_string(&dump_path).unwrap());
        let mut reader = GoReader::open(running.pid()).unwrap();
        let mut moved = 0;
        for round in 0..30 {
            let sample = reader.sample(f64::from(round)).unwrap();
            let parked: Vec<&Group> =
                sample.groups.iter().filter(|group| dump.contains_key(&shape_of(group))).collect();
            for group in &parked {
                assert_eq!(group.count, dump[&shape_of(group)], "{} round {round}", go.display());
                assert_eq!((group.joined, group.left, group.moved), (0, 0, 0), "{group:#?}");
            }
            assert!(parked.len() + 2 >= dump.len(), "{}: {} of {}", go.display(), parked.len(), dump.len());
            moved += sample.groups.iter().map(|group| group.joined + group.left + group.moved).sum::<u64>();
            let members: u64 = sample.groups.iter().map(|group| group.count).sum();
            let torn = sample.losses.get("torn_reads").copied().unwrap_or(0);
            assert_eq!(sample.alive, members + sample.members_left_out + torn);
            assert!(!sample.losses.contains_key("invalid_goroutines"), "{:?}", sample.losses);
        }
        assert!(moved > 0, "nothing came or went");
    }
}

#[test]
#[ignore = "needs root"]
fn root_goroutines_agree_with_the_programs_own_dump() {
    for go in toolchains() {
        check_shapes(&go, Build::Plain);
    }
}

#[test]
#[ignore = "needs root"]
fn root_goroutines_of_stripped_position_independent_programs_agree() {
    for go in toolchains() {
        check_shapes(&go, Build::StrippedPie);
    }
}

#[test]
#[ignore = "needs root"]
fn root_goroutines_of_programs_with_c_agree() {
    for go in toolchains() {
        check_shapes(&go, Build::Cgo);
    }
}

#[test]
#[ignore = "needs root"]
fn root_goroutines_of_a_program_without_section_headers_agree() {
    for go in toolchains() {
        check_shapes(&go, Build::NoSections);
    }
}

#[test]
#[ignore = "needs root"]
fn root_a_process_that_exits_while_it_is_read_ends_with_exited() {
    let directory = tempfile::tempdir().unwrap();
    let go = toolchains().pop().unwrap();
    let program = Program::build(&go, "shapes", Build::Plain, directory.path());
    let dump = directory.path().join("dump");
    let mut running = program.start(&[dump.to_str().unwrap(), "40"]);
    running.wait_for_line("ready");
    let pid = running.pid();
    let mut reader = GoReader::open(pid).unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(running);
    });
    let error = loop {
        match reader.sample(0.0) {
            Ok(sample) => assert!(sample.alive > 0),
            Err(error) => break error,
        }
    };
    killer.join().unwrap();
    assert!(matches!(error, GoError::Exited { .. }), "{error}");
    assert!(matches!(GoReader::open(pid), Err(GoError::Exited { .. })));
}

#[test]
#[ignore = "needs root"]
fn root_what_is_no_go_program_is_said_to_be_none() {
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    // Until exec it is a copy of this test.
    while std::fs::read_to_string(format!("/proc/{}/comm", sleeper.id())).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let error = GoReader::open(sleeper.id());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(matches!(error, Err(GoError::NotGo { .. })));
}
