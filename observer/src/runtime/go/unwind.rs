//! The stack of a goroutine that does not run, from a copy of it.
//!
//! Walks as the runtime's own traceback does, by the frame sizes in pclntab, which also hold in a
//! prologue, in a system call and where no frame pointer was saved. All that differs between
//! architectures is here. Costs a hash lookup a frame.

use crate::runtime::go::symbol::{GoSymbols, Step};

/// Innermost frames that are kept of a deep stack, and outermost ones.
pub(super) const INNERMOST: usize = 200;
pub(super) const OUTERMOST: usize = 56;

/// Where a goroutine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub pc: u64,
    pub sp: u64,
    /// The link register: arm64 keeps the return address of an innermost function in it.
    pub lr: u64,
    /// Stopped on its way into a system call or C.
    pub is_syscall: bool,
}

/// A copy of the part of a stack from the stack pointer up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub start: u64,
    pub bytes: &'a [u8],
    /// The end of the stack, of which the copy may be less.
    pub high: u64,
}

impl Window<'_> {
    pub(super) fn word(&self, address: u64) -> Word {
        let offset = address.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        let Some(offset) = offset.filter(|_| address.checked_add(8).is_some_and(|end| end <= self.high))
        else {
            return Word::Outside;
        };
        match offset.checked_add(8).and_then(|end| self.bytes.get(offset..end)) {
            Some(word) => Word::Value(u64::from_le_bytes(word.try_into().unwrap_or_default())),
            None => Word::Beyond,
        }
    }
}

pub(super) enum Word {
    Value(u64),
    /// In the stack, but not in the copy.
    Beyond,
    Outside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the function that every goroutine begins in.
    Top,
    /// The copy is too small.
    NeedsMore,
    /// At code that is not Go's, or whose frame cannot be told.
    Lost,
}

/// Appends the pcs of a stack to `pcs`, innermost first.
pub(super) fn walk(symbols: &mut GoSymbols, context: Context, window: Window<'_>, pcs: &mut Vec<u64>) -> End {
    walk_frames(symbols, context, window, |pc, _| pcs.push(pc))
}

/// Calls `visit` with the pc and the stack pointer of each frame, innermost first.
pub(super) fn walk_frames(
    symbols: &mut GoSymbols,
    context: Context,
    window: Window<'_>,
    mut visit: impl FnMut(u64, u64),
) -> End {
    let Context { mut pc, mut sp, mut lr, is_syscall } = context;
    if pc == 0 {
        // A call of a nil function: begin at its caller.
        match window.word(sp) {
            Word::Value(word) => pc = word,
            Word::Beyond => return End::NeedsMore,
            Word::Outside => return End::Lost,
        }
        if !USES_LINK_REGISTER {
            sp = sp.saturating_add(8);
        }
        lr = 0;
    }
    let mut innermost = true;
    loop {
        let (delta, injected) = match symbols.step(pc) {
            Step::Frame(delta) => (delta, false),
            Step::Injected(delta) => (delta, true),
            Step::WritesStackPointer(delta) if innermost && is_syscall => (delta, false),
            Step::Top => {
                visit(pc, sp);
                return End::Top;
            }
            Step::WritesStackPointer(_) => {
                visit(pc, sp);
                return End::Lost;
            }
            Step::Unknown => {
                if innermost {
                    visit(pc, sp);
                }
                return End::Lost;
            }
        };
        visit(pc, sp);
        let Some(caller) = caller(sp, u64::from(delta), std::mem::take(&mut lr)) else { return End::Lost };
        let return_address = match caller.return_address {
            At::Register(value) => value,
            At::Stack(address) => match window.word(address) {
                Word::Value(value) => value,
                Word::Beyond => return End::NeedsMore,
                Word::Outside => return End::Lost,
            },
        };
        // The stack is finite and each caller lies higher, but for one register's worth at the bottom.
        if return_address == 0 || (caller.sp <= sp && !innermost) {
            return End::Lost;
        }
        (pc, sp, innermost) = (return_address, caller.sp, false);
        if USES_LINK_REGISTER && injected {
            // The signal handler stored the link register below what it interrupted.
            match window.word(sp) {
                Word::Value(value) => lr = value,
                Word::Beyond => return End::NeedsMore,
                Word::Outside => return End::Lost,
            }
            sp = sp.saturating_add(16);
        }
    }
}

/// Cuts the middle out of a deep stack; whether there was one.
pub(super) fn shorten(pcs: &mut Vec<u64>) -> bool {
    if pcs.len() <= INNERMOST + OUTERMOST {
        return false;
    }
    pcs.drain(INNERMOST..pcs.len() - OUTERMOST);
    true
}

struct Caller {
    sp: u64,
    return_address: At,
}

enum At {
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "only arm64 has a link register"))]
    Register(u64),
    Stack(u64),
}

const USES_LINK_REGISTER: bool = cfg!(target_arch = "aarch64");

/// A call pushes the return address, and the frame lies below it.
#[cfg(not(target_arch = "aarch64"))]
fn caller(sp: u64, delta: u64, _lr: u64) -> Option<Caller> {
    let slot = sp.checked_add(delta)?;
    Some(Caller { sp: slot.checked_add(8)?, return_address: At::Stack(slot) })
}

/// A function with a frame stores the link register at its bottom; one without leaves it there.
#[cfg(target_arch = "aarch64")]
fn caller(sp: u64, delta: u64, lr: u64) -> Option<Caller> {
    let above = sp.checked_add(delta)?;
    let return_address = if delta == 0 && lr != 0 { At::Register(lr) } else { At::Stack(sp) };
    Some(Caller { sp: above, return_address })
}
