//! Heap in use and who keeps it, read from outside, against what the programs themselves know, on every Go
//! toolchain there is.
//!
//! Ring two: needs ptrace access and the toolchains of `cargo xtask setup`.

use std::collections::BTreeMap;

use observer::runtime::go::GoReader;
use observer::runtime::go::retain::RetainBudget;
use observer::runtime::interface::Tasks;
use observer::sample::{GroupId, Retained};

use crate::programs::go::{Build, Program, Running, toolchains};

const MEMBERS: u64 = 400;

/// A started `holders`: bytes a member of each group made the heap grow, and the runtime's own figures.
struct Holders {
    running: Running,
    grown: BTreeMap<String, f64>,
    heap_in_use: u64,
    heap_alloc: u64,
    stack_in_use: u64,
}

fn start(program: &Program) -> Holders {
    let mut running = program.start(&["-members", &MEMBERS.to_string()]);
    let mut grown = BTreeMap::new();
    loop {
        let line = running.wait_for_line("");
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        match words[0] {
            "group" => drop(grown.insert(words[1].to_owned(), number(2) as f64)),
            "ready" => {
                return Holders {
                    running,
                    grown,
                    heap_in_use: number(1),
                    heap_alloc: number(2),
                    stack_in_use: number(3),
                };
            }
            _ => panic!("holders said: {line}"),
        }
    }
}

/// The group whose members block in `holdName`.
fn id_of(sample: &Tasks, name: &str) -> GroupId {
    let capital: String = name[..1].to_uppercase() + &name[1..];
    let function = format!("main.hold{capital}");
    let mut groups =
        sample.groups.iter().filter(|group| group.frames.iter().any(|frame| frame.function == function));
    let group = groups.next().unwrap_or_else(|| panic!("no group in {function}"));
    assert_eq!(group.count, MEMBERS, "{function}");
    assert!(groups.next().is_none(), "{function} is in two groups");
    group.id
}

#[track_caller]
fn near(what: &str, value: f64, truth: f64) {
    let off = (value - truth).abs();
    assert!(off <= truth * 0.1 || off <= 64.0, "{what}: {value:.0} instead of {truth:.0}");
}

fn check(version: &str, holders: &Holders, retained: &BTreeMap<&str, Retained>) {
    for (name, of) in retained {
        println!(
            "{version} {name:10} grown {:6.0} exclusive {:8.1} ± {:5.1} also global {:8.1} group {:9} shared {:9}",
            holders.grown[*name],
            of.exclusive_bytes_per_member,
            of.standard_error_bytes,
            of.also_global_bytes_per_member,
            of.group_bytes.unwrap(),
            of.shared_with_groups_bytes.unwrap()
        );
    }
    for (name, of) in retained {
        let grown = holders.grown[*name];
        let group_bytes = of.group_bytes.unwrap() as f64;
        let what = format!("{version} {name}");
        assert_eq!(of.truncated_members, 0, "{what}");
        assert_eq!(of.sampled_members, 64, "{what}");
        match *name {
            "registered" => {
                // The map itself grew too: what is left is what every goroutine here takes.
                near(&what, of.exclusive_bytes_per_member, holders.grown["buffer"] - f64::from(32 << 10));
                near(&format!("{what} also global"), of.also_global_bytes_per_member, 16384.0);
            }
            "shared" => {
                near(&what, of.exclusive_bytes_per_member, grown);
                near(&format!("{what} together"), group_bytes, MEMBERS as f64 * grown + f64::from(8 << 20));
            }
            "listed" => {
                assert!(of.exclusive_bytes_per_member < 1500.0, "{what}: {of:?}");
                near(&format!("{what} together"), group_bytes, MEMBERS as f64 * grown);
            }
            "left" | "right" => {
                near(&what, of.exclusive_bytes_per_member, grown);
                let both = MEMBERS as f64 * f64::from(24 << 10);
                near(&format!("{what} with the other"), of.shared_with_groups_bytes.unwrap() as f64, both);
            }
            _ => {
                near(&what, of.exclusive_bytes_per_member, grown);
                near(&format!("{what} together"), group_bytes, MEMBERS as f64 * grown);
                assert!(of.also_global_bytes_per_member < 2048.0, "{what}: {of:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn root_spans_say_what_memstats_says_and_groups_hold_what_they_made_the_heap_grow() {
    for go in toolchains() {
        let version = go.file_name().unwrap().to_string_lossy().into_owned();
        for build in [Build::Plain, Build::StrippedPie] {
            let directory = tempfile::tempdir().unwrap();
            let holders = start(&Program::build(&go, "holders", build, directory.path()));
            let mut reader = GoReader::open(holders.running.pid()).unwrap();
            let memory = reader.memory().unwrap();
            for (what, value, truth) in [
                ("heap in use", memory.heap_in_use_bytes, holders.heap_in_use),
                ("heap objects", memory.heap_objects_bytes, holders.heap_alloc),
                ("stack in use", memory.stack_in_use_bytes, holders.stack_in_use),
            ] {
                // What printing the figures took is in one of them only.
                println!("{version} {what} {value} {truth}");
                assert!(value.abs_diff(truth) <= (64 << 10), "{version} {what}: {value} instead of {truth}");
            }

            let sample = reader.sample(0.0).unwrap();
            let names: Vec<&str> = holders.grown.keys().map(String::as_str).collect();
            let ids: Vec<GroupId> = names.iter().map(|name| id_of(&sample, name)).collect();
            let measured = reader.measure(&ids, RetainBudget::default()).unwrap();
            assert!(measured.is_complete, "{version}: {measured:?}");
            let retained: BTreeMap<&str, Retained> =
                names.iter().copied().zip(measured.groups.into_iter().map(Option::unwrap)).collect();
            check(&version, &holders, &retained);

            // Asked about alone, a half's pairs are the other half's too.
            let left = id_of(&sample, "left");
            let alone = reader.retained(&[left], RetainBudget::default());
            near("left alone", alone[&left].exclusive_bytes_per_member, holders.grown["left"]);
            near("left alone, also global", alone[&left].also_global_bytes_per_member, f64::from(24 << 10));
            assert_eq!(alone[&left].shared_with_groups_bytes, Some(0));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn root_a_budget_that_is_too_small_is_kept_and_said() {
    let go = toolchains().pop().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let holders = start(&Program::build(&go, "holders", Build::Plain, directory.path()));
    let mut reader = GoReader::open(holders.running.pid()).unwrap();
    let sample = reader.sample(0.0).unwrap();
    let buffer = id_of(&sample, "buffer");
    let budget = RetainBudget { bytes: 256 << 10, ..RetainBudget::default() };
    let measured = reader.measure(&[buffer], budget).unwrap();
    assert!(!measured.is_complete);
    assert!(measured.bytes_read < 4 << 20, "{measured:?}");
    let retained = measured.groups[0].clone().unwrap();
    assert_eq!(retained.group_bytes, None);
}
