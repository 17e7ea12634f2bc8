//! Addresses to functions, files and lines.
//!
//! A [`Symbolizer`] belongs to one process image. `native` does it for ELF modules, `go` from Go's own tables;
//! [`Chain`] asks several in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::sample::Frame;

pub(crate) mod address_hash;
pub(crate) mod cache;

pub mod native;
pub(crate) mod perf_map;
pub(crate) mod tail_call;

/// Names longer than this are cut: what a target calls its functions is up to the target.
pub const MAX_NAME_BYTES: usize = 1024;

/// Frames that one address may stand for, by inlining.
pub const MAX_INLINED: usize = 32;

/// Turns the code addresses of one process into frames.
pub trait Symbolizer: Send {
    /// What stands at each address, innermost first; `None` for an address that is not this symbolizer's.
    ///
    /// The address is that of an instruction, so for a caller one below the return address.
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>>;

    /// Where the call just before a return address leads, where the code there says so.
    fn call_target(&mut self, _return_address: u64) -> Option<u64> {
        None
    }
}

/// The first of several symbolizers that knows an address answers for it.
#[derive(Default)]
pub struct Chain(pub Vec<Box<dyn Symbolizer>>);

impl Symbolizer for Chain {
    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
        let mut answers = vec![None; addresses.len()];
        let mut open: Vec<usize> = (0..addresses.len()).collect();
        for symbolizer in &mut self.0 {
            if open.is_empty() {
                break;
            }
            let asked: Vec<u64> = open.iter().map(|&index| addresses[index]).collect();
            for (&index, answer) in open.iter().zip(symbolizer.symbolize(&asked)) {
                answers[index] = answer;
            }
            open.retain(|&index| answers[index].is_none());
        }
        answers
    }

    fn call_target(&mut self, return_address: u64) -> Option<u64> {
        self.0.iter_mut().find_map(|symbolizer| symbolizer.call_target(return_address))
    }
}

/// The frames of whole stacks: the first address of each is exact, the others are return addresses.
///
/// An address that nobody knows stays in the stack as a frame with nothing but the address.
pub fn stacks(symbolizer: &mut dyn Symbolizer, stacks: &[&[u64]]) -> Vec<Arc<[Frame]>> {
    if stacks.is_empty() {
        return Vec::new();
    }
    let instructions: Vec<u64> = stacks.iter().flat_map(|stack| instructions(stack)).collect();
    let mut asked = instructions.clone();
    let targets: BTreeMap<u64, u64> = return_addresses(stacks)
        .into_iter()
        .filter_map(|address| Some((address, symbolizer.call_target(address)?)))
        .collect();
    // What lies just before a function is none of it.
    asked.extend(targets.values().flat_map(|&target| [target, target.saturating_sub(1)]));
    asked.sort_unstable();
    asked.dedup();
    let answers = symbolizer.symbolize(&asked);
    let answer =
        |address: u64| asked.binary_search(&address).ok().and_then(|index| answers.get(index)?.as_deref());
    let mut next = instructions.iter();
    stacks
        .iter()
        .map(|stack| {
            let mut frames = Vec::with_capacity(stack.len());
            let mut callee: Option<&[Frame]> = None;
            for (&address, &instruction) in stack.iter().zip(&mut next) {
                let known = answer(instruction);
                if let (Some(callee), Some(caller)) = (callee, known)
                    && let Some(&target) = targets.get(&address)
                    && let Some(entered) = answer(target)
                {
                    frames.extend(tail_call::jumped(
                        callee,
                        caller,
                        entered,
                        answer(target.saturating_sub(1)),
                    ));
                }
                match known {
                    Some(known) => frames.extend(known.iter().cloned()),
                    None => frames.push(Frame { address, ..Frame::default() }),
                }
                callee = known;
            }
            frames.into()
        })
        .collect()
}

/// The different return addresses on these stacks, in order.
fn return_addresses(stacks: &[&[u64]]) -> BTreeSet<u64> {
    stacks.iter().flat_map(|stack| stack.iter().skip(1).copied()).collect()
}

/// The addresses to look up for a stack: a return address may already belong to the next function.
fn instructions(stack: &[u64]) -> impl Iterator<Item = u64> {
    stack
        .iter()
        .enumerate()
        .map(|(depth, &address)| if depth == 0 { address } else { address.saturating_sub(1) })
}

/// A name within bounds, cut between characters.
pub fn bounded_name(mut name: String) -> String {
    if name.len() > MAX_NAME_BYTES {
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Even(&'static str, std::ops::Range<u64>);

    impl Symbolizer for Even {
        fn symbolize(&mut self, addresses: &[u64]) -> Vec<Option<Arc<[Frame]>>> {
            addresses
                .iter()
                .map(|address| {
                    self.1.contains(address).then(|| {
                        let frame = |function: String| Frame { function, ..Frame::default() };
                        [frame(format!("{}{address}", self.0)), frame(self.0.to_owned())].into()
                    })
                })
                .collect()
        }
    }

    #[test]
    fn a_caller_is_looked_up_one_below_its_return_address() {
        let mut chain = Chain(vec![Box::new(Even("a", 0..10)), Box::new(Even("b", 5..20))]);
        let found = stacks(&mut chain, &[&[10, 10, 40], &[], &[0, 0]]);
        let names = |index: usize| {
            found[index].iter().map(|frame| (frame.function.as_str(), frame.address)).collect::<Vec<_>>()
        };
        assert_eq!(names(0), [("b10", 0), ("b", 0), ("a9", 0), ("a", 0), ("", 40)]);
        assert!(names(1).is_empty());
        assert_eq!(names(2), [("a0", 0), ("a", 0), ("a0", 0), ("a", 0)]);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = bounded_name("ä".repeat(2000));
        assert!(name.len() <= MAX_NAME_BYTES + '…'.len_utf8() && name.ends_with("ä…"));
    }
}
