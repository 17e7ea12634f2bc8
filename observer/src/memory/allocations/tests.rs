//! Sampled allocations against what was really asked for.

use super::*;
use crate::unwind::{End, Stack};
use observer_common::allocations::interval;

/// Every address is a function of its own: code without names would be one place.
struct Functions;

impl Symbolizer for Functions {
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
        let frame = |&address: &u64| Frame { function: format!("f{address:x}"), address, ..Frame::default() };
        addresses.iter().map(|address| Some([frame(address)].into())).collect()
    }
}

struct Here;

impl Unwinder for Here {
    fn unwind(&mut self, registers: &Registers) -> Stack {
        Stack { addresses: vec![registers.ip], end: End::Root, ..Stack::default() }
    }
    fn unwind_copied(&mut self, registers: &Registers, _: &[u8]) -> Stack {
        self.unwind(registers)
    }
    fn remap(&mut self, _: &[maps::Mapping]) {}
}

fn reader() -> AllocationReader {
    AllocationReader::new(std::process::id(), Box::new(Functions), Box::new(Here))
}

fn made(address: u64, time: u64, size: u64, ip: u64) -> Made<'static> {
    let registers = Registers { ip, sp: 0x7000, ..Registers::default() };
    Made { address, time, size, period: 1 << 16, registers, stack: &[] }
}

#[test]
fn live_bytes_are_what_was_not_freed() {
    // The kernel's draw, over sizes from a few bytes to more than the period.
    let (mut reader, mut seed, mut left) = (reader(), 88_172_645_463_325_252u64, 0i64);
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u32
    };
    let (mut truth, mut live) = ([0u64; 2], Vec::new());
    for step in 1..200_000u64 {
        let size = [24, 200, 3000, 100_000][(step % 4) as usize];
        let ip = [0x1000, 0x2000][(step / 4 % 2) as usize];
        left -= size as i64;
        let sampled = left <= 0;
        if sampled {
            left = interval(random(), 1 << 16);
            reader.made(&made(step << 20, step, size, ip));
        }
        // One site keeps every tenth block, the other none.
        if ip == 0x1000 && step % 10 < 4 {
            truth[0] += size;
        } else if sampled {
            live.push(step);
        }
    }
    for step in live {
        reader.freed(step << 20, step);
    }
    let found = reader.sample(1.0);
    assert_eq!(found.sites.len(), 1, "{found:?}");
    let site = &found.sites[0];
    let error = site.live_bytes as f64 / truth[0] as f64 - 1.0;
    assert!(error.abs() < 0.02, "{error}: {site:?}");
    assert!(site.error_bytes > 0 && site.error_bytes < site.live_bytes / 20, "{site:?}");
    assert_eq!(found.live_bytes, site.live_bytes);
}

#[test]
fn the_order_in_which_frees_are_told_does_not_matter() {
    let mut reader = reader();
    // Freed, and its address handed out to another thread before that is told.
    reader.made(&made(0x10, 1, 100, 0x1000));
    reader.made(&made(0x10, 5, 100, 0x2000));
    reader.freed(0x10, 1);
    let found = reader.sample(1.0);
    assert_eq!((found.sites.len(), found.frees), (1, 1));
    assert_eq!(found.sites[0].frames[0].address, 0x1fff);
    // Freed before it is told that it was made.
    reader.freed(0x20, 7);
    reader.made(&made(0x20, 7, 100, 0x3000));
    reader.settle();
    assert_eq!(reader.sample(2.0).sites.len(), 1);
    // What is not known and never comes costs nothing.
    for address in 0..2 * MAX_EARLY as u64 {
        reader.freed(address << 8, 9);
    }
    assert!(reader.early.len() <= MAX_EARLY);
    reader.settle();
    assert!(reader.early.is_empty());
}

#[test]
fn stacks_and_blocks_are_bounded_and_what_is_left_out_is_counted() {
    let mut reader = reader();
    for index in 1..=(MAX_LIVE as u64 + 10) {
        reader.made(&made(index << 8, index, 64, index % (2 * MAX_STACKS as u64) + 0x1000));
    }
    let losses = reader.take_losses();
    assert_eq!(losses.get("allocations_left_out"), Some(&10));
    assert!(losses.contains_key("allocation_stacks_left_out"));
    assert_eq!(reader.places.len(), MAX_STACKS + 1);
    let found = reader.sample(1.0);
    assert_eq!(found.sites.len(), MAX_SITES);
    assert_eq!(found.samples, MAX_LIVE as u64);
}
