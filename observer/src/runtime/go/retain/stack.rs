//! What the stack of a goroutine points to: its live pointers, as the target's own collector would find them.
//!
//! By the program's stack maps, frame by frame. Where those do not say (a goroutine that runs, a frame that a
//! signal interrupted, code that is not Go's) every word counts. Reads each stack once, from the stack pointer
//! up; costs a hash lookup a frame and a look at each live pointer.

use std::io;

use super::super::unwind::{Context, End, Window, Word, walk_frames};
use super::mark::Limit;
use crate::process::memory::{MAX_RANGES, RemoteMemory};
use crate::runtime::go::symbol::stackmap::Variable;
use crate::runtime::go::symbol::{GoSymbols, Step};

/// A stack is read so far; deeper ones are rare and counted.
pub(super) const MAX_STACK: u64 = 1 << 20;

/// A goroutine that has a stack to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goroutine {
    /// Of its `g`.
    pub address: u64,
    pub sp: u64,
    /// Where it stopped; 0: it runs, nobody knows.
    pub pc: u64,
    pub stack_bytes: u32,
    pub is_syscall: bool,
    pub group: Option<u16>,
    /// The first deferred call, where its record lies on the stack: distance from `sp`.
    pub deferred: Option<u32>,
}

/// What reading stacks took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub bytes: u64,
    /// Not ended by the limit.
    pub is_complete: bool,
}

/// Reads stacks and gives their live pointers to `found`, with the goroutine's index.
pub(super) fn each(
    memory: RemoteMemory,
    symbols: &mut GoSymbols,
    goroutines: &[Goroutine],
    limit: Limit,
    mut found: impl FnMut(usize, &[u64]),
) -> io::Result<Done> {
    let mut buffer = vec![0; MAX_STACK as usize];
    let mut ranges = Vec::new();
    let mut pointers = Vec::new();
    let mut total = 0;
    let mut first = 0;
    while first < goroutines.len() {
        if limit.is_reached(total) {
            return Ok(Done { bytes: total, is_complete: false });
        }
        ranges.clear();
        let mut bytes = 0;
        for goroutine in goroutines[first..].iter().take(MAX_RANGES) {
            let length = goroutine.stack_bytes as usize;
            if bytes + length > buffer.len() {
                break;
            }
            ranges.push((goroutine.sp, length));
            bytes += length;
        }
        memory.read_many(&ranges, &mut buffer, |index, stack| {
            let (Some(stack), Some(goroutine)) = (stack, goroutines.get(first + index)) else { return };
            pointers.clear();
            live(symbols, goroutine, stack, &mut pointers);
            found(first + index, &pointers);
        })?;
        total += bytes as u64;
        // No stack is larger than the buffer.
        first += ranges.len().max(1);
    }
    Ok(Done { bytes: total, is_complete: true })
}

/// The live pointers of one stack.
fn live(symbols: &mut GoSymbols, goroutine: &Goroutine, stack: &[u8], pointers: &mut Vec<u64>) {
    let low = goroutine.sp;
    let high = low.saturating_add(u64::from(goroutine.stack_bytes));
    let window = Window { start: low, bytes: stack, high };
    if goroutine.pc == 0 {
        return all(window, low, high, pointers);
    }
    let context = Context { pc: goroutine.pc, sp: low, lr: 0, is_syscall: goroutine.is_syscall };
    let mut frames: Vec<(u64, u64)> = Vec::new();
    let end = walk_frames(symbols, context, window, |pc, sp| frames.push((pc, sp)));

    let mut objects: Vec<(u64, Variable)> = Vec::new();
    let mut is_interrupted = false;
    for (index, &(pc, sp)) in frames.iter().enumerate() {
        let above = match frames.get(index + 1) {
            Some(&(_, above)) => above,
            // What the walk did not get through.
            None => high,
        };
        let was_interrupted = is_interrupted;
        is_interrupted = matches!(symbols.step(pc), Step::Injected(_));
        let is_last = index + 1 == frames.len();
        let map = if was_interrupted || is_interrupted || (is_last && end != End::Top) {
            None
        } else if is_last {
            // The function that every goroutine begins in has nothing.
            continue;
        } else {
            symbols.frame_map(pc)
        };
        let Some(map) = map else {
            all(window, sp, above, pointers);
            continue;
        };
        for &offset in &map.pointers {
            if let Some(Word::Value(word)) = sp.checked_add_signed(offset).map(|address| window.word(address))
            {
                pointers.push(word);
            }
        }
        objects.extend(
            map.variables
                .iter()
                .filter_map(|variable| Some((sp.checked_add_signed(variable.start)?, *variable))),
        );
    }
    if frames.is_empty() {
        all(window, low, high, pointers);
    }
    if let Some(offset) = goroutine.deferred {
        pointers.push(low + u64::from(offset));
    }
    follow_into_stack(window, objects, pointers);
}

/// Adds what variables on the stack point to that something points to.
fn follow_into_stack(window: Window<'_>, mut variables: Vec<(u64, Variable)>, pointers: &mut Vec<u64>) {
    variables.sort_unstable_by_key(|&(start, _)| start);
    let mut next = 0;
    while let Some(&pointer) = pointers.get(next) {
        next += 1;
        if variables.is_empty() || !(window.start..window.high).contains(&pointer) {
            continue;
        }
        let after = variables.partition_point(|&(start, _)| start <= pointer);
        let Some((start, variable)) = after.checked_sub(1).and_then(|index| variables.get_mut(index)) else {
            continue;
        };
        if pointer - *start < u64::from(variable.bytes) {
            // Once is enough.
            let bytes = std::mem::take(&mut variable.pointer_bytes);
            all(window, *start, start.saturating_add(u64::from(bytes)), pointers);
        }
    }
}

/// Adds every word from `low` to `high`.
fn all(window: Window<'_>, low: u64, high: u64, pointers: &mut Vec<u64>) {
    let mut address = low.next_multiple_of(8).max(window.start);
    while address < high.min(window.high) {
        match window.word(address) {
            Word::Value(word) => pointers.push(word),
            _ => return,
        }
        address += 8;
    }
}
