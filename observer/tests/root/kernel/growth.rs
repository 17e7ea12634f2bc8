//! Page faults by the stack that touched, and what is lost when nobody reads them in time.

use std::fs;

use observer::kernel::{Drained, Fault, KernelOptions};

use super::{Target, load, ready};

#[test]
#[ignore = "needs root"]
fn growth_is_attributed_to_the_function_that_touched_it() {
    let mut kernel = load(&KernelOptions::default());
    let mut target = Target::start("grow", &[]);
    ready(&mut target);
    let handle = kernel.add_target(target.pid()).unwrap();
    let before = resident_of(target.pid());
    kernel.drain();
    target.say("keep 256");
    target.line();
    let faults = kernel.drain().faults;
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
    let Drained { faults, losses, .. } = kernel.drain();
    assert!(!faults.is_empty() && faults.iter().all(|fault| fault.stack.len() >= 1024), "{}", faults.len());
    // The frame record that the chain ends at lies in the copy, with the return address beside it.
    let fault = &faults[faults.len() / 2];
    let place = (fault.bp - fault.sp) as usize;
    let saved = u64::from_ne_bytes(fault.stack[place + 8..place + 16].try_into().unwrap());
    assert_eq!(saved, fault.frames[1]);
    assert_eq!(losses.get("growth_ring_full"), None);
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
    let Drained { faults, lifecycle: events, losses, .. } = kernel.drain();
    let kept = faults.len() as u64;
    // Every sample is either kept or counted as lost: 256 faults a MiB, one of 61 sampled.
    let samples = kept + losses["growth_ring_full"];
    assert!((800..1500).contains(&samples), "{kept} {losses:?}");
    assert_eq!(events.len() as u64 + losses["lifecycle_ring_full"], 200, "{losses:?}");
    assert!(kernel.drain().losses.is_empty(), "counted since the last call only");
}
