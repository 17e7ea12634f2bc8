//! Functions that are on no stack because they ended by jumping: `leak` of `leak() { ...; memset(p, 0, n); }`.
//!
//! Optimizing compilers turn a call in last place into a jump. The callee then stands on the stack as if the caller's
//! caller had called it. But the instruction before the return address still says which function was called from
//! there. Where that is a known function from its first instruction on, and not the one that stands on the stack, it
//! jumped there, directly or by others that left no trace. Reads 7 bytes of code a return address, once.

use super::cache::Cache;
use crate::process::memory::RemoteMemory;
use crate::sample::Frame;

/// Return addresses whose call is remembered.
const CACHED_CALLS: usize = 1 << 16;

/// Reads the call before a return address.
#[derive(Debug)]
pub(crate) struct Calls {
    memory: RemoteMemory,
    known: Cache<u64, Option<u64>>,
}

impl Calls {
    pub(crate) fn new(memory: RemoteMemory) -> Self {
        Self { memory, known: Cache::new(CACHED_CALLS) }
    }

    /// Other code may lie at the addresses now.
    pub(crate) fn forget(&mut self) {
        self.known = Cache::new(CACHED_CALLS);
    }

    /// Where the call before a return address leads; `None` for every call but a direct one.
    pub(crate) fn target(&mut self, return_address: u64) -> Option<u64> {
        if let Some(known) = self.known.get(&return_address) {
            return known;
        }
        let memory = self.memory;
        let target = arch::call_target(return_address, |address, bytes| {
            memory.read_exact(address, bytes).is_ok().then_some(())
        });
        self.known.insert(return_address, target);
        target
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    const BND: u8 = 0xf2;

    /// `call rel32`, and through the stub that leads to another module's function.
    pub(super) fn call_target(
        return_address: u64,
        read: impl Fn(u64, &mut [u8]) -> Option<()>,
    ) -> Option<u64> {
        let mut code = [0; 7];
        read(return_address.checked_sub(7)?, &mut code)?;
        // `call *disp32(base,index,8)` has the same byte in the same place.
        if code[2] != 0xe8 || code[..2] == [0xff, 0x94] {
            return None;
        }
        let entry = relative(return_address, code.last_chunk()?)?;
        Some(behind_stub(entry, read).unwrap_or(entry))
    }

    /// What the stub of a procedure linkage table jumps to: `jmp *slot(%rip)`.
    fn behind_stub(entry: u64, read: impl Fn(u64, &mut [u8]) -> Option<()>) -> Option<u64> {
        let mut code = [0; 11];
        read(entry, &mut code)?;
        let mut jump = 0;
        if code.starts_with(ENDBR64) {
            jump += ENDBR64.len();
        }
        if code[jump] == BND {
            jump += 1;
        }
        let [0xff, 0x25, distance @ ..] = code.get(jump..jump + 6)? else { return None };
        let next = entry.checked_add(jump as u64 + 6)?;
        let slot = relative(next, distance.first_chunk()?)?;
        let mut address = [0; 8];
        read(slot, &mut address)?;
        Some(u64::from_le_bytes(address))
    }

    fn relative(next: u64, distance: &[u8; 4]) -> Option<u64> {
        next.checked_add_signed(i64::from(i32::from_le_bytes(*distance)))
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    /// `bl`, whose distance is a signed number of instructions.
    pub fn call_target(return_address: u64, read: impl Fn(u64, &mut [u8]) -> Option<()>) -> Option<u64> {
        let call = return_address.checked_sub(4)?;
        let mut code = [0; 4];
        read(call, &mut code)?;
        let word = u32::from_le_bytes(code);
        let distance = i64::from((word << 6).cast_signed() >> 6) * 4;
        (word >> 26 == 0b10_0101).then(|| call.checked_add_signed(distance))?
    }
}

/// The frame to put between the frames of a callee and its caller, where the call went to another function than the
/// callee: `entered` are the frames at the call's target, `before` those at the byte before it.
pub(crate) fn jumped(
    callee: &[Frame],
    caller: &[Frame],
    entered: &[Frame],
    before: Option<&[Frame]>,
) -> Option<Frame> {
    let [.., callee] = callee else { return None };
    let [.., called] = entered else { return None };
    // Go has no calls of this kind, and switches stacks in ways that look like them.
    if [callee, called].iter().chain(&caller.last()).any(|frame| frame.module.is_none()) {
        return None;
    }
    let same = |one: &Frame, other: &Frame| {
        one.module == other.module && whole(&one.function) == whole(&other.function)
    };
    let begins_there = before.and_then(<[Frame]>::last).is_none_or(|before| !same(before, called));
    if called.function.is_empty() || !begins_there || same(callee, called) {
        return None;
    }
    // Where in the function it jumped is not known, so there is no line.
    Some(Frame { line: None, tail_call: true, inlined: false, ..called.clone() })
}

/// The function that a part moved out of the way belongs to: it was jumped to, too.
fn whole(function: &str) -> &str {
    function.find(".cold").map_or(function, |at| &function[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: Option<&str>) -> Frame {
        Frame {
            function: function.to_owned(),
            module: module.map(str::to_owned),
            file: Some("a.c".to_owned()),
            line: Some(3),
            ..Frame::default()
        }
    }

    #[test]
    fn a_function_that_was_called_and_is_not_there_jumped() {
        let [memset, leak, main] = [("memset", "libc"), ("leak", "a"), ("main", "a")]
            .map(|(function, module)| frame(function, Some(module)));
        let between = |callee: &Frame, called: &Frame, before: Option<&Frame>| {
            jumped(
                std::slice::from_ref(callee),
                std::slice::from_ref(&main),
                std::slice::from_ref(called),
                before.map(std::slice::from_ref),
            )
        };
        let found = between(&memset, &leak, None).unwrap();
        assert_eq!((found.function.as_str(), found.line, found.tail_call), ("leak", None, true));
        assert_eq!(between(&memset, &leak, Some(&main)).as_ref(), Some(&found));
        assert_eq!(between(&leak, &leak, None), None, "it is there");
        let cold = frame("leak.cold", Some("a"));
        assert_eq!(between(&cold, &leak, None), None, "a part of it is there");
        assert_eq!(between(&memset, &leak, Some(&leak)), None, "not its first instruction");
        assert_eq!(between(&memset, &frame("", Some("a")), None), None, "nobody knows what that is");
        assert_eq!(between(&memset, &frame("main.leak", None), None), None, "Go");
        let unknown = frame("", Some("libc"));
        assert!(between(&unknown, &leak, None).is_some(), "what is there is not what was called");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn reads_direct_calls_and_no_others() {
        let target = |before: &[u8], stub: &[u8], slot: u64| {
            arch::call_target(0x1000, |address, bytes| {
                let mut from = match address {
                    0xff9 => before.to_vec(),
                    0x1100 => stub.to_vec(),
                    0x3000 => slot.to_le_bytes().to_vec(),
                    _ => return None,
                };
                from.resize(bytes.len(), 0x90);
                bytes.copy_from_slice(&from);
                Some(())
            })
        };
        let call = [0x90, 0x90, 0xe8, 0x00, 0x01, 0, 0];
        assert_eq!(target(&call, &[0x55], 0), Some(0x1100));
        assert_eq!(target(&[0xff, 0x94, 0xe8, 0, 1, 0, 0], &[0x55], 0), None);
        assert_eq!(target(&[0x90, 0xff, 0x15, 0, 1, 0, 0], &[0x55], 0), None);
        assert_eq!(target(&[0x90, 0x90, 0xe8, 0, 0, 0, 0x80], &[], 0), None, "below all addresses");
        // 0x1100 + 6 + 0x1efa = 0x3000
        assert_eq!(target(&call, &[0xff, 0x25, 0xfa, 0x1e, 0, 0], 0x7777), Some(0x7777));
        let with_endbr = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf5, 0x1e, 0, 0];
        assert_eq!(target(&call, &with_endbr, 0x7777), Some(0x7777));
        assert_eq!(target(&call, &[0xff, 0x25, 0, 0, 0, 0], 0x7777), Some(0x1100), "no such slot");
    }
}
