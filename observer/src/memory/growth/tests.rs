//! The reader with made-up memory: what stays and what goes, touched by made-up stacks.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;

use super::*;
use crate::process::code::OwnAllocator;
use crate::unwind::Stack;

/// Names each address.
struct Names;

impl Symbolizer for Names {
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
        let frame = |address| Frame { function: format!("f{address}"), ..Frame::default() };
        addresses.iter().map(|&address| Some(Arc::from([frame(address)]))).collect()
    }
}

/// A stack in the copy is the addresses themselves.
struct Copied;

impl Unwinder for Copied {
    fn unwind(&mut self, _: &Registers) -> Stack {
        Stack::default()
    }

    fn unwind_copied(&mut self, registers: &Registers, stack: &[u8]) -> Stack {
        let rest = stack.iter().map(|&byte| u64::from(byte));
        Stack {
            addresses: std::iter::once(registers.ip).chain(rest).collect(),
            end: End::Root,
            guessed: false,
        }
    }

    fn remap(&mut self, _: &[Mapping]) {}
}

/// Page numbers that are there.
type Memory = Arc<Mutex<BTreeSet<u64>>>;

/// As of a Go program.
fn go() -> RuntimeCode {
    RuntimeCode {
        parks_carriers: true,
        own_allocator: Some(OwnAllocator { of: "Go", told_anyway: "" }),
        ..RuntimeCode::default()
    }
}

fn reader(code: &RuntimeCode) -> (GrowthReader, Memory) {
    let memory = Memory::default();
    let there = Arc::clone(&memory);
    let resident = move |pages: &[u64]| {
        let there = there.lock().unwrap();
        Ok(pages.iter().map(|page| there.contains(page)).collect())
    };
    let pid = std::process::id();
    (GrowthReader::new(pid, code, Box::new(Names), Box::new(Copied), Survivors::by_page(resident)), memory)
}

/// Touches pages by a stack, and leaves them there.
fn touch(memory: &Memory, pages: Range<u64>, reader: &mut GrowthReader, frames: &[u64], stack: &[u8]) {
    memory.lock().unwrap().extend(pages.clone());
    let registers = Registers { ip: frames[0], ..Registers::default() };
    let touches: Vec<Seen<'_>> = pages
        .map(|page| Touch {
            address: page * page_bytes(),
            weight: 1,
            registers,
            thread: frames[0] as u32,
            frames,
            stack,
        })
        .map(Seen::Touch)
        .collect();
    reader.record(&touches);
}

fn names(site: &GrowthSite) -> Vec<&str> {
    site.frames.iter().map(|frame| frame.function.as_str()).collect()
}

#[test]
fn only_what_is_still_there_is_growth() {
    let (mut reader, memory) = reader(&go());
    touch(&memory, 100..4100, &mut reader, &[5, 11], &[]);
    touch(&memory, 5000..11000, &mut reader, &[6, 12], &[]);
    let before = reader.sample(0.0);
    assert_eq!(before.sites.len(), 2);
    assert_eq!(before.sites[0].bytes, 6000 * page_bytes());
    memory.lock().unwrap().split_off(&5000);
    assert_eq!(reader.sample(1.0).sites.len(), 2, "not looked at again so soon");
    let after = reader.sample(10.0);
    assert_eq!(after.sites.len(), 1, "{:?}", after.sites);
    assert_eq!(after.sites[0].bytes, 4000 * page_bytes());
    assert_eq!(names(&after.sites[0]), ["f5", "f10"]);
    assert_eq!(after.total_bytes, after.sites[0].bytes);
    assert!(after.losses.is_empty());
}

#[test]
fn what_each_thread_touched_goes_with_the_pages() {
    let (mut reader, memory) = reader(&go());
    touch(&memory, 100..4100, &mut reader, &[5, 11], &[]);
    touch(&memory, 5000..11000, &mut reader, &[6, 12], &[]);
    reader.sample(0.0);
    let page = page_bytes();
    assert_eq!(reader.touched_by_thread()[&5], 4000 * page);
    assert_eq!(reader.touched_by_thread().values().sum::<u64>(), 10_000 * page);
    memory.lock().unwrap().split_off(&5000);
    reader.sample(10.0);
    let touched = reader.touched_by_thread();
    assert_eq!((touched.get(&6), touched.get(&5)), (None, Some(&(4000 * page))));
}

#[test]
fn what_grows_now_stands_before_what_grew_once() {
    let (mut reader, memory) = reader(&go());
    touch(&memory, 0..9000, &mut reader, &[5, 11], &[]);
    for second in 0..10 {
        reader.sample(f64::from(second) * 2.0);
        let first = 10_000 + u64::from(second as u32) * 100;
        touch(&memory, first..first + 100, &mut reader, &[6, 12], &[]);
    }
    let found = reader.sample(20.0);
    let [grows, grew] = &found.sites[..] else { panic!("{:?}", found.sites) };
    assert_eq!((names(grows), names(grew)), (vec!["f6", "f11"], vec!["f5", "f10"]));
    assert!(grew.bytes > 5 * grows.bytes && grew.bytes_per_second.abs() < 1.0);
    let truth = (50 * page_bytes()) as f64;
    assert!((grows.bytes_per_second / truth - 1.0).abs() < 0.2, "{} of {truth}", grows.bytes_per_second);
}

#[test]
fn memory_that_moved_is_still_there() {
    let (mut reader, memory) = reader(&go());
    touch(&memory, 100..4100, &mut reader, &[5, 11], &[]);
    *memory.lock().unwrap() = (50_000..54_000).collect();
    let moved = Seen::Move {
        from: 100 * page_bytes(),
        to: 50_000 * page_bytes(),
        bytes: 4000 * page_bytes(),
        room: 4001 * page_bytes(),
    };
    reader.record(&[moved]);
    let sites = reader.sample(0.0).sites;
    assert_eq!((names(&sites[0]), sites[0].bytes), (vec!["f5", "f10"], 4000 * page_bytes()));
}

#[test]
fn a_page_belongs_to_the_stack_that_touched_it_last() {
    let (mut reader, memory) = reader(&go());
    touch(&memory, 1..100, &mut reader, &[5], &[]);
    touch(&memory, 1..100, &mut reader, &[7], &[]);
    let sites = reader.sample(0.0).sites;
    assert_eq!((sites.len(), names(&sites[0])), (1, vec!["f7"]));
}

#[test]
fn a_copied_stack_is_preferred_where_code_keeps_no_frame_pointers() {
    let (mut reader, memory) = reader(&RuntimeCode::default());
    touch(&memory, 1..10, &mut reader, &[5], &[20, 30]);
    assert_eq!(names(&reader.sample(0.0).sites[0]), ["f5", "f19", "f29"]);
}

#[test]
fn stacks_beyond_the_bound_are_one_site_and_counted() {
    let (mut reader, memory) = reader(&go());
    for page in 1..=MAX_STACKS as u64 + 1000 {
        touch(&memory, page..page + 1, &mut reader, &[page], &[]);
    }
    let sample = reader.sample(0.0);
    assert_eq!(sample.sites.len(), MAX_SITES);
    assert!(sample.sites[0].frames.is_empty(), "the largest is the one of all that is left over");
    assert_eq!(sample.losses["growth_stacks_left_out"], 1000);
    assert!(sample.losses["growth_sites_left_out"] > 0);
    assert_eq!(sample.total_bytes, (MAX_STACKS as u64 + 1000) * page_bytes());
    assert!(!reader.sample(1.0).losses.contains_key("growth_sites_left_out"), "they are no other ones");
    // Its memory given back, a stack makes room for another.
    memory.lock().unwrap().clear();
    reader.sample(10.0);
    touch(&memory, 1..11, &mut reader, &[1 << 40], &[]);
    let again = reader.sample(20.0);
    assert_eq!((again.total_bytes, names(&again.sites[0])), (10 * page_bytes(), vec!["f1099511627776"]));
}
