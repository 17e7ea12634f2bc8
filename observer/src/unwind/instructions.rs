//! What the instructions themselves say where a file has no call frame information: musl's libc, assembly, code made
//! at run time, and frames whose information needs a register that is not known.
//!
//! From where a function is, its instructions are followed forward until it returns: pushes, pops and additions
//! up to there tell where the return address and the caller's registers lie. Reads the target's code, at most
//! [`MAX_INSTRUCTIONS`] of it; some 20 µs a place, remembered. A way that cannot be followed (a jump through a
//! table, a call that never returns) yields nothing or another answer: the caller checks each by what lies there.

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{exits_the_thread, follows_a_call, returns_from_a_signal, ways_out};

/// Instructions followed from one place, over all branches.
#[cfg(target_arch = "x86_64")]
const MAX_INSTRUCTIONS: usize = 600;
/// Different answers from one place that are worth looking at.
#[cfg(target_arch = "x86_64")]
const MAX_WAYS: usize = 8;

/// What a position in the stack is counted from: a register as it was where the function is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 instructions are followed"))]
pub(super) enum Base {
    Stack,
    Frame,
}

/// A place in the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub base: Base,
    pub offset: i64,
}

/// What became of a register that functions preserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 instructions are followed"))]
pub(super) enum Preserved {
    Unchanged,
    At(Place),
    Lost,
}

/// Where the caller is, by one way to the function's return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epilogue {
    pub return_address: Place,
    /// By DWARF number, in the order of [`super::rules::register::PRESERVED`].
    pub preserved: [Preserved; 6],
}

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::Epilogue;

    pub fn ways_out(_: u64, _: impl FnMut(u64, &mut [u8]) -> usize) -> Vec<Epilogue> {
        Vec::new()
    }

    pub fn exits_the_thread(_: u64, _: &[u8]) -> bool {
        false
    }

    pub fn follows_a_call(_: &[u8]) -> bool {
        true
    }

    pub fn returns_from_a_signal(_: &[u8]) -> bool {
        false
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub use other::{exits_the_thread, follows_a_call, returns_from_a_signal, ways_out};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::collections::{HashSet, VecDeque};

    use iced_x86::{
        Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
        OpKind, Register,
    };

    use super::{Base, Epilogue, MAX_INSTRUCTIONS, MAX_WAYS, Place, Preserved};

    /// No instruction is longer.
    const LONGEST: usize = 15;
    const CHUNK: usize = 256;
    /// `exit` and `exit_group`.
    const EXITS: [u64; 2] = [60, 231];
    /// As their DWARF numbers are in `rules::register::PRESERVED`: 3, 6, 12, 13, 14, 15.
    const PRESERVED: [Register; 6] =
        [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];
    const FRAME: usize = 1;

    /// The instructions of the target, a piece at a time.
    struct Code<R> {
        read: R,
        start: u64,
        bytes: Vec<u8>,
    }

    impl<R: FnMut(u64, &mut [u8]) -> usize> Code<R> {
        fn at(&mut self, address: u64) -> Option<Instruction> {
            let inside = |start: u64, length: usize| {
                let offset = usize::try_from(address.checked_sub(start)?).ok()?;
                (offset < length).then_some(offset)
            };
            let mut offset = inside(self.start, self.bytes.len());
            if offset.is_none_or(|offset| self.bytes.len() - offset < LONGEST) {
                self.bytes.resize(CHUNK, 0);
                let read = (self.read)(address, &mut self.bytes);
                self.bytes.truncate(read);
                self.start = address;
                offset = inside(self.start, self.bytes.len());
            }
            let bytes = self.bytes.get(offset?..)?;
            let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
            (!instruction.is_invalid()).then_some(instruction)
        }
    }

    #[derive(Clone, Copy)]
    struct State {
        ip: u64,
        /// The stack pointer, as far as it can be told.
        stack: Option<Place>,
        /// The frame pointer, where it points into the stack and is no longer the caller's.
        frame: Option<Place>,
        preserved: [Preserved; 6],
    }

    /// Where the caller of the function that is at `address` may be found: one answer where all ways agree.
    pub(crate) fn ways_out(address: u64, read: impl FnMut(u64, &mut [u8]) -> usize) -> Vec<Epilogue> {
        let mut code = Code { read, start: 0, bytes: Vec::new() };
        let mut facts = InstructionInfoFactory::new();
        let mut seen = HashSet::new();
        let mut ways: Vec<Epilogue> = Vec::new();
        let mut open = VecDeque::from([State {
            ip: address,
            stack: Some(Place { base: Base::Stack, offset: 0 }),
            frame: Some(Place { base: Base::Frame, offset: 0 }),
            preserved: [Preserved::Unchanged; 6],
        }]);
        while let Some(mut state) = open.pop_front() {
            while seen.len() < MAX_INSTRUCTIONS && ways.len() < MAX_WAYS && seen.insert(state.ip) {
                let Some(instruction) = code.at(state.ip) else { break };
                match instruction.flow_control() {
                    FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => {
                        if let Some(return_address) = state.stack {
                            let way = Epilogue { return_address, preserved: state.preserved };
                            if !ways.contains(&way) {
                                ways.push(way);
                            }
                        }
                        break;
                    }
                    FlowControl::UnconditionalBranch => {
                        state.ip = instruction.near_branch_target();
                        continue;
                    }
                    FlowControl::ConditionalBranch => {
                        open.push_back(State { ip: instruction.near_branch_target(), ..state });
                    }
                    FlowControl::Next if instruction.mnemonic() != Mnemonic::Hlt => {
                        state.step(&instruction, &mut facts);
                    }
                    // What is called gives back what functions preserve, the stack pointer too; unless it never
                    // returns, and then padding or another function follows.
                    FlowControl::Call | FlowControl::IndirectCall => {
                        let behind = code.at(instruction.next_ip());
                        if behind
                            .is_none_or(|behind| matches!(behind.mnemonic(), Mnemonic::Nop | Mnemonic::Int3))
                        {
                            break;
                        }
                    }
                    _ => break,
                }
                state.ip = instruction.next_ip();
            }
        }
        ways
    }

    impl State {
        fn step(&mut self, instruction: &Instruction, facts: &mut InstructionInfoFactory) {
            let before = *self;
            let used = facts.info(instruction).used_registers();
            for register in used {
                let writes = matches!(
                    register.access(),
                    OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
                );
                if !writes {
                    continue;
                }
                let full = register.register().full_register();
                if full == Register::RSP {
                    self.stack = before.pointer_after(instruction);
                } else if let Some(index) = PRESERVED.iter().position(|&preserved| preserved == full) {
                    self.preserved[index] = before.loaded(instruction, full);
                    if index == FRAME {
                        self.frame = before.frame_after(instruction);
                    }
                }
            }
        }

        /// The stack pointer after an instruction that changes it.
        fn pointer_after(&self, instruction: &Instruction) -> Option<Place> {
            let moved = |place: Option<Place>, by: i64| {
                let place = place?;
                Some(Place { base: place.base, offset: place.offset.checked_add(by)? })
            };
            match instruction.mnemonic() {
                Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq
                    if instruction.op0_register() != Register::RSP =>
                {
                    moved(self.stack, i64::from(instruction.stack_pointer_increment()))
                }
                Mnemonic::Add if is_immediate(instruction) => {
                    moved(self.stack, instruction.immediate(1).cast_signed())
                }
                Mnemonic::Sub if is_immediate(instruction) => {
                    moved(self.stack, instruction.immediate(1).cast_signed().checked_neg()?)
                }
                Mnemonic::Leave => moved(self.frame, 8),
                Mnemonic::Lea => self.address(instruction),
                Mnemonic::Mov if instruction.op1_kind() == OpKind::Register => {
                    (instruction.op1_register() == Register::RBP).then_some(self.frame)?
                }
                _ => None,
            }
        }

        fn frame_after(&self, instruction: &Instruction) -> Option<Place> {
            match instruction.mnemonic() {
                Mnemonic::Mov
                    if instruction.op1_kind() == OpKind::Register
                        && instruction.op1_register() == Register::RSP =>
                {
                    self.stack
                }
                Mnemonic::Lea => self.address(instruction),
                _ => None,
            }
        }

        /// What a preserved register is after an instruction that wrote it: the caller's again, or not.
        fn loaded(&self, instruction: &Instruction, register: Register) -> Preserved {
            let place = match instruction.mnemonic() {
                Mnemonic::Pop if instruction.op0_register() == register => self.stack,
                Mnemonic::Leave => self.frame,
                Mnemonic::Mov
                    if instruction.op0_register() == register && instruction.op1_kind() == OpKind::Memory =>
                {
                    self.address(instruction)
                }
                _ => None,
            };
            place.map_or(Preserved::Lost, Preserved::At)
        }

        /// The address that an operand in memory has, when it is one in the stack.
        fn address(&self, instruction: &Instruction) -> Option<Place> {
            if instruction.memory_index() != Register::None || instruction.segment_prefix() != Register::None
            {
                return None;
            }
            let base = match instruction.memory_base() {
                Register::RSP => self.stack?,
                Register::RBP => self.frame?,
                _ => return None,
            };
            let by = instruction.memory_displacement64().cast_signed();
            Some(Place { base: base.base, offset: base.offset.checked_add(by)? })
        }
    }

    fn is_immediate(instruction: &Instruction) -> bool {
        matches!(
            instruction.op1_kind(),
            OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate64 | OpKind::Immediate8
        )
    }

    /// Whether the code at a return address does nothing more than end the thread.
    pub(crate) fn exits_the_thread(address: u64, bytes: &[u8]) -> bool {
        let mut call = None;
        for instruction in Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).iter().take(8) {
            match instruction.mnemonic() {
                Mnemonic::Syscall => return call.is_some_and(|call| EXITS.contains(&call)),
                Mnemonic::Mov if instruction.op0_register() == Register::EAX && is_number(&instruction) => {
                    call = Some(instruction.immediate(1));
                }
                Mnemonic::Mov if instruction.op0_register() == Register::AL && is_number(&instruction) => {
                    call = call.filter(|&call| call == 0).map(|_| instruction.immediate(1));
                }
                Mnemonic::Xor
                    if instruction.op0_register() == Register::EAX
                        && instruction.op1_register() == Register::EAX =>
                {
                    call = Some(0);
                }
                _ if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next => {
                    return false;
                }
                _ => {}
            }
        }
        false
    }

    fn is_number(instruction: &Instruction) -> bool {
        matches!(instruction.op1_kind(), OpKind::Immediate8 | OpKind::Immediate32 | OpKind::Immediate32to64)
    }

    /// Whether the bytes before a return address are a call, direct or by a register or memory.
    pub(crate) fn follows_a_call(before: &[u8]) -> bool {
        let tail = |length: usize| before.len().checked_sub(length).and_then(|start| before.get(start..));
        if tail(5).is_some_and(|bytes| bytes[0] == 0xe8) {
            return true;
        }
        // ff /2: what follows the two bytes depends on how the operand is addressed.
        (2..=7).any(|length| {
            tail(length).is_some_and(|bytes| {
                let mode = bytes[1];
                bytes[0] == 0xff && mode >> 3 & 7 == 2 && {
                    let indexed = usize::from(mode >> 6 != 3 && mode & 7 == 4);
                    let by = match (mode >> 6, mode & 7) {
                        (1, _) => 1,
                        (2, _) | (0, 5) => 4,
                        (0, 4) if bytes.get(2).is_some_and(|index| index & 7 == 5) => 4,
                        _ => 0,
                    };
                    length == 2 + indexed + by
                }
            })
        })
    }

    /// Whether this is where a signal handler returns to: `mov $15, %eax; syscall`.
    pub(crate) fn returns_from_a_signal(code: &[u8]) -> bool {
        const LONG: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
        const SHORT: &[u8] = &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05];
        code.starts_with(LONG) || code.starts_with(SHORT)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    const AT: u64 = 0x1000;

    fn ways(code: &[u8]) -> Vec<Epilogue> {
        ways_out(AT, |address, buffer| {
            let from = address.checked_sub(AT).map_or(code.len(), |offset| offset as usize).min(code.len());
            let part = &code[from..code.len().min(from + buffer.len())];
            buffer[..part.len()].copy_from_slice(part);
            part.len()
        })
    }

    fn at(base: Base, offset: i64) -> Place {
        Place { base, offset }
    }

    #[test]
    fn follows_pops_and_additions_to_the_return() {
        // add $0x18,%rsp; pop %rbx; pop %rbp; ret
        let found = ways(&[0x48, 0x83, 0xc4, 0x18, 0x5b, 0x5d, 0xc3]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].return_address, at(Base::Stack, 0x28));
        assert_eq!(found[0].preserved[0], Preserved::At(at(Base::Stack, 0x18)));
        assert_eq!(found[0].preserved[1], Preserved::At(at(Base::Stack, 0x20)));
        assert_eq!(found[0].preserved[2], Preserved::Unchanged);
    }

    #[test]
    fn follows_a_frame_pointer_and_both_sides_of_a_branch() {
        // leave; ret
        let found = ways(&[0xc9, 0xc3]);
        assert_eq!(found[0].return_address, at(Base::Frame, 8));
        assert_eq!(found[0].preserved[1], Preserved::At(at(Base::Frame, 0)));
        // je +1; ret; pop %rax; ret: two answers, and the caller of this has to say which is right.
        assert_eq!(ways(&[0x74, 0x01, 0xc3, 0x58, 0xc3]).len(), 2);
        // je +1; nop; ret: one.
        assert_eq!(ways(&[0x74, 0x01, 0x90, 0xc3]).len(), 1);
        // and $-16,%rsp; ret: nobody knows. jmp *%rax: neither.
        assert!(ways(&[0x48, 0x83, 0xe4, 0xf0, 0xc3]).is_empty());
        assert!(ways(&[0xff, 0xe0]).is_empty());
    }

    #[test]
    fn ends_on_code_without_end_and_on_garbage() {
        // jmp to itself; a jump to nowhere; nothing at all.
        for code in [&[0xeb, 0xfe][..], &[0xe9, 0xff, 0xff, 0xff, 0x7f], &[], &[0x06], &[0x0f]] {
            assert!(ways(code).is_empty());
        }
        let branches: Vec<u8> = [0x74, 0x00].repeat(5000);
        assert!(ways(&branches).is_empty());
        let mut state = 7u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let _ = (ways(&bytes), exits_the_thread(AT, &bytes), follows_a_call(&bytes));
        }
    }

    #[test]
    fn knows_a_call_by_what_stands_before_its_return_address() {
        let calls: [&[u8]; 8] = [
            &[0xe8, 1, 2, 3, 4],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd4],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x50, 0x18],
            &[0xff, 0x54, 0x24, 0x08],
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4],
            &[0xff, 0x94, 0x24, 1, 2, 3, 4],
        ];
        for call in calls {
            let mut code = vec![0x90; 8];
            code.extend(call);
            assert!(follows_a_call(&code), "{call:x?}");
        }
        for other in [&[0x90; 8][..], &[0xff, 0xe0], &[0xff, 0x25, 1, 2, 3, 4], &[0xc3], &[]] {
            assert!(!follows_a_call(other), "{other:x?}");
        }
    }

    #[test]
    fn knows_the_end_of_a_thread() {
        // musl's: mov %eax,%edi; xor %eax,%eax; mov $60,%al; syscall
        assert!(exits_the_thread(AT, &[0x89, 0xc7, 0x31, 0xc0, 0xb0, 0x3c, 0x0f, 0x05, 0xf4]));
        // mov $60,%eax; syscall, and another call.
        assert!(exits_the_thread(AT, &[0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05]));
        assert!(!exits_the_thread(AT, &[0xb8, 0x3d, 0, 0, 0, 0x0f, 0x05]));
        // Something happens before.
        assert!(!exits_the_thread(AT, &[0xe8, 0, 0, 0, 0, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05]));
        assert!(returns_from_a_signal(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]));
    }
}
