//! Where the breakpoint of a function is cheapest: at an instruction that the kernel carries out by itself, instead of
//! running it alone and stopping again behind it. On a virtual machine that second stop alone can cost 10 µs.
//!
//! Takes the code of a function, gives how far behind its beginning that is: only as far as every call comes by, with
//! its arguments, the return address and the frame still where they were. What the kernel carries out: branch_setup_xol_ops
//! and push_setup_xol_ops in arch/x86/kernel/uprobes.c.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register,
};

use crate::kernel::allocations::kind;

/// Instructions looked at from the beginning on.
const INSTRUCTIONS: usize = 16;
/// Of a function, in bytes: a longer one is left as it is.
pub(super) const LONGEST: usize = 16 << 10;

/// Bytes from the beginning of `code`, all of a function of this kind, to where its breakpoint goes.
pub(super) fn shift(code: &[u8], kind: u32) -> u64 {
    if !cfg!(target_arch = "x86_64") || code.len() > LONGEST {
        return 0;
    }
    match cheap(code, kind) {
        Some(shift) if shift > 0 && !is_jumped_to(code, shift) => shift,
        _ => 0,
    }
}

fn cheap(code: &[u8], kind: u32) -> Option<u64> {
    let mut info = InstructionInfoFactory::new();
    for instruction in Decoder::new(64, code, DecoderOptions::NONE).iter().take(INSTRUCTIONS) {
        if instruction.is_invalid() {
            return None;
        }
        if is_carried_out(&instruction) {
            return Some(instruction.ip());
        }
        if instruction.flow_control() != FlowControl::Next {
            return None;
        }
        let writes = |access| {
            use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
        };
        let used = info.info(&instruction).used_registers();
        let changed =
            used.iter().filter(|used| writes(used.access())).map(|used| used.register().full_register());
        if changed.into_iter().any(|register| is_needed(register, kind)) {
            return None;
        }
    }
    None
}

/// What the kernel side reads at the beginning of a call (observer-ebpf/src/allocations.rs).
fn is_needed(register: Register, kind: u32) -> bool {
    let arguments: &[Register] = match kind {
        kind::FREE | kind::MALLOC => &[Register::RDI],
        kind::CALLOC | kind::REALLOC => &[Register::RDI, Register::RSI],
        kind::MEMALIGN => &[Register::RSI],
        _ => &[Register::RDI, Register::RSI, Register::RDX],
    };
    matches!(register, Register::RSP | Register::RBP) || arguments.contains(&register)
}

fn is_carried_out(instruction: &Instruction) -> bool {
    let relative = instruction.is_jcc_short_or_near()
        || instruction.is_jmp_short_or_near()
        || instruction.is_call_near();
    let alone = matches!(instruction.code(), Code::Push_r64 | Code::Nopd) && instruction.len() <= 2;
    // With a prefix it is none of them.
    alone || (relative && !instruction.has_repne_prefix())
}

/// Whether anything in the function goes back to before or to there: then a call would come by twice.
fn is_jumped_to(code: &[u8], shift: u64) -> bool {
    Decoder::new(64, code, DecoderOptions::NONE).iter().any(|instruction| {
        let jumps = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        jumps && (1..=shift).contains(&instruction.near_branch_target())
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn as_far_as_every_call_comes_by_with_its_arguments() {
        let test_je = [0x48, 0x85, 0xff, 0x74, 0x00, 0x55, 0xc3];
        let cases: [(&str, &[u8], u32, u64); 9] = [
            ("push %r12", &[0x41, 0x54, 0xc3], kind::MALLOC, 0),
            ("test %rdi, %rdi; je (free of glibc 2.36)", &test_je, kind::FREE, 3),
            ("endbr64; push %rbx", &[0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0xc3], kind::MALLOC, 4),
            (
                "mov %rdi, %rcx; test; je (mimalloc)",
                &[0x48, 0x89, 0xf9, 0x48, 0x85, 0xff, 0x74, 0, 0xc3],
                kind::FREE,
                6,
            ),
            ("mov %rsi, %rdi; push: the argument is gone", &[0x48, 0x89, 0xf7, 0x55, 0xc3], kind::FREE, 0),
            ("mov %rsi, %rdi; push: not needed", &[0x48, 0x89, 0xf7, 0x55, 0xc3], kind::MEMALIGN, 3),
            (
                "sub $8, %rsp; push: the return address is elsewhere",
                &[0x48, 0x83, 0xec, 8, 0x55, 0xc3],
                kind::MALLOC,
                0,
            ),
            ("test; push; jmp back to the push", &[0x48, 0x85, 0xff, 0x55, 0xeb, 0xfd], kind::FREE, 0),
            ("ret", &[0xc3], kind::FREE, 0),
        ];
        for (what, code, kind, expected) in cases {
            assert_eq!(shift(code, kind), expected, "{what}");
        }
        for garbage in [&[][..], &[0xff; 20], &[0x66, 0x66], &[0x48, 0x85]] {
            assert_eq!(shift(garbage, kind::FREE), 0, "{garbage:?}");
        }
    }
}
