//! The reader on its own process: memory that stays and memory that goes, touched by made-up stacks.

use super::*;
use crate::collect::threads::unwind::Stack;

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
        Stack { addresses: std::iter::once(registers.ip).chain(rest).collect(), end: End::Root }
    }

    fn remap(&mut self, _: &[Mapping]) {}
}

fn reader(go: bool) -> GrowthReader {
    GrowthReader::open(std::process::id(), go, Box::new(Names), Box::new(Copied))
}

fn touch_all<'s>(memory: &[u8], frames: &'s [u64], stack: &'s [u8]) -> Vec<Touch<'s>> {
    let registers = Registers { ip: frames[0], ..Registers::default() };
    memory
        .chunks(page_bytes() as usize)
        .map(|page| Touch { address: page.as_ptr() as u64, weight: 61, registers, frames, stack })
        .collect()
}

/// Every page of it is there.
fn memory(pages: usize) -> Vec<u8> {
    vec![1; pages * page_bytes() as usize]
}

#[test]
fn only_what_is_still_there_is_growth() {
    let (kept, freed) = (memory(4000), memory(6000));
    let mut reader = reader(true);
    reader.record(&touch_all(&kept, &[5, 11], &[]));
    reader.record(&touch_all(&freed, &[6, 12], &[]));
    let before = reader.sample(0.0);
    assert_eq!(before.sites.len(), 2);
    assert_eq!(before.sites[0].bytes, 6000 * 61 * page_bytes());
    drop(freed);
    assert_eq!(reader.sample(1.0).sites.len(), 2, "not looked at again so soon");
    let after = reader.sample(10.0);
    assert_eq!(after.sites.len(), 1, "{:?}", after.sites);
    assert_eq!((after.sites[0].bytes, after.sites[0].via.as_str()), (4000 * 61 * page_bytes(), "mmap"));
    let names: Vec<_> = after.sites[0].frames.iter().map(|frame| frame.function.as_str()).collect();
    assert_eq!(names, ["f5", "f10"]);
    assert_eq!(after.total_bytes, after.sites[0].bytes);
    assert!(after.losses.is_empty());
    std::hint::black_box(kept);
}

#[test]
fn a_page_belongs_to_the_stack_that_touched_it_last() {
    let kept = memory(100);
    let mut reader = reader(true);
    reader.record(&touch_all(&kept, &[5], &[]));
    reader.record(&touch_all(&kept, &[7], &[]));
    let sites = reader.sample(0.0).sites;
    assert_eq!((sites.len(), sites[0].frames[0].function.as_str()), (1, "f7"));
    std::hint::black_box(kept);
}

#[test]
fn a_copied_stack_is_preferred_where_code_keeps_no_frame_pointers() {
    let kept = memory(10);
    let mut native = reader(false);
    native.record(&touch_all(&kept, &[5], &[20, 30]));
    let names: Vec<_> =
        native.sample(0.0).sites[0].frames.iter().map(|frame| frame.function.clone()).collect();
    assert_eq!(names, ["f5", "f19", "f29"]);
    std::hint::black_box(kept);
}

#[test]
fn stacks_beyond_the_bound_are_one_site_and_counted() {
    let kept = memory(MAX_STACKS + 1000);
    let mut reader = reader(true);
    for (index, page) in kept.chunks(page_bytes() as usize).enumerate() {
        let frames = [index as u64 + 1];
        reader.record(&touch_all(page, &frames, &[]));
    }
    let sample = reader.sample(0.0);
    assert_eq!(sample.sites.len(), MAX_SITES);
    assert!(sample.sites[0].frames.is_empty(), "the largest is the one of all that is left over");
    assert_eq!(sample.losses["growth_stacks_left_out"], 1000);
    assert!(sample.losses["growth_sites_left_out"] > 0);
    assert_eq!(sample.total_bytes, (MAX_STACKS as u64 + 1000) * 61 * page_bytes());
    drop(kept);
    // Its memory given back, a stack makes room for another.
    reader.sample(10.0);
    let again = memory(10);
    reader.record(&touch_all(&again, &[1 << 40], &[]));
    assert_eq!(reader.sample(20.0).sites.first().map(|site| site.bytes), Some(10 * 61 * page_bytes()));
    std::hint::black_box(again);
}
