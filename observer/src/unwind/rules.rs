//! How to get from one place in the code to its caller: the call frame information of one module.
//!
//! Parses `.eh_frame`, by its index where there is one, into a [`Rule`] an address. The bytes are the target's:
//! sizes are bounded before they are read, and expressions run for so many steps and no longer.

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EhFrameHdr, Encoding, EndianSlice, Evaluation,
    EvaluationResult, FrameDescriptionEntry, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindExpression, UnwindSection as _, Value,
};

type Slice<'b> = EndianSlice<'b, LittleEndian>;

/// What the DWARF standard calls the registers that a walk follows.
#[cfg(target_arch = "x86_64")]
pub(crate) mod register {
    pub(crate) const COUNT: usize = 17;
    pub(crate) const FRAME: u16 = 6;
    pub(crate) const STACK: u16 = 7;
    pub(crate) const RETURN: u16 = 16;
    /// Those that a function gives back as it found them.
    pub(crate) const PRESERVED: &[u16] = &[3, 6, 12, 13, 14, 15];
}
#[cfg(target_arch = "aarch64")]
pub mod register {
    pub const COUNT: usize = 33;
    pub const FRAME: u16 = 29;
    pub const STACK: u16 = 31;
    pub const RETURN: u16 = 30;
    pub const PRESERVED: &[u16] = &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30];
}

/// Values of the registers as far as they are known, by DWARF number.
pub(crate) type Values = [Option<u64>; register::COUNT];

/// Steps that an expression may take.
const MAX_STEPS: u32 = 1000;
/// Bytes of instructions that describe one function.
const MAX_INSTRUCTIONS: usize = 256 << 10;
/// Functions in a table that has no index of its own.
const MAX_FUNCTIONS: usize = 1 << 20;

/// A section's bytes, and the address it has in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    pub bytes: Vec<u8>,
    pub address: u64,
}

/// The call frame information of one module.
#[derive(Debug)]
pub(crate) struct Rules {
    frames: Section,
    index: Option<Section>,
    /// Start, end and offset of each function, where the file has no index.
    functions: Vec<(u64, u64, usize)>,
}

/// From a frame to its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// There is no caller: the first frame of a thread.
    Root,
    Caller {
        cfa: Place,
        saved: Vec<(u16, Saved)>,
        /// The caller was interrupted and did not call: its address is exact.
        interrupted: bool,
    },
}

/// Where the caller's frame begins (its "canonical frame address").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Register(u16, i64),
    Expression(Box<[u8]>),
}

/// Where a register of the caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    At(i64),
    Is(i64),
    In(u16),
    AtExpression(Box<[u8]>),
    IsExpression(Box<[u8]>),
    Lost,
}

impl Rules {
    /// `index` is `.eh_frame_hdr`; without it the whole section is looked through once.
    pub(crate) fn new(frames: Section, index: Option<Section>) -> Self {
        let mut rules = Self { frames, index, functions: Vec::new() };
        if !rules.index_is_usable() {
            rules.index = None;
            rules.functions = rules.list_functions();
        }
        rules
    }

    fn section(&self) -> EhFrame<Slice<'_>> {
        let mut section = EhFrame::new(&self.frames.bytes, LittleEndian);
        section.set_address_size(8);
        section
    }

    fn bases(&self) -> BaseAddresses {
        let bases = BaseAddresses::default().set_eh_frame(self.frames.address);
        match &self.index {
            Some(index) => bases.set_eh_frame_hdr(index.address),
            None => bases,
        }
    }

    fn index_is_usable(&self) -> bool {
        self.index.as_ref().is_some_and(|index| {
            EhFrameHdr::new(&index.bytes, LittleEndian)
                .parse(&self.bases(), 8)
                .is_ok_and(|header| header.table().is_some())
        })
    }

    fn list_functions(&self) -> Vec<(u64, u64, usize)> {
        let (section, bases) = (self.section(), self.bases());
        let mut functions = Vec::new();
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            if let CieOrFde::Fde(partial) = entry
                && let Ok(function) = partial.parse(EhFrame::cie_from_offset)
            {
                let start = function.initial_address();
                functions.push((start, start.saturating_add(function.len()), function.offset()));
            }
            if functions.len() >= MAX_FUNCTIONS {
                break;
            }
        }
        functions.sort_unstable();
        functions
    }

    /// The rule at an address of the file; `None` where the file has none.
    pub(crate) fn at(&self, address: u64) -> Option<Rule> {
        let (section, bases) = (self.section(), self.bases());
        let function = match &self.index {
            Some(index) => EhFrameHdr::new(&index.bytes, LittleEndian)
                .parse(&bases, 8)
                .ok()?
                .table()?
                .fde_for_address(&section, &bases, address, EhFrame::cie_from_offset)
                .ok()?,
            None => {
                let after = self.functions.partition_point(|&(start, ..)| start <= address);
                let (_, end, offset) = *self.functions.get(after.checked_sub(1)?)?;
                (address < end).then_some(())?;
                section.fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset).ok()?
            }
        };
        rule(&section, &bases, &function, address)
    }
}

fn rule(
    section: &EhFrame<Slice<'_>>,
    bases: &BaseAddresses,
    function: &FrameDescriptionEntry<Slice<'_>>,
    address: u64,
) -> Option<Rule> {
    if function.entry_len() > MAX_INSTRUCTIONS || function.cie().entry_len() > MAX_INSTRUCTIONS {
        return None;
    }
    let mut context = UnwindContext::new();
    let row = function.unwind_info_for_address(section, bases, &mut context, address).ok()?;
    let bytes = |expression: &UnwindExpression<usize>| {
        expression.get(section).ok().map(|expression| Box::from(expression.0.slice()))
    };
    let return_register = function.cie().return_address_register();
    if matches!(row.register(return_register), Some(RegisterRule::Undefined)) {
        return Some(Rule::Root);
    }
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => Place::Register(register.0, *offset),
        CfaRule::Expression(expression) => Place::Expression(bytes(expression)?),
    };
    let mut saved = Vec::new();
    for number in 0..register::COUNT as u16 {
        let Some(rule) = row.register(Register(number)) else { continue };
        let how = match rule {
            RegisterRule::Offset(offset) => Saved::At(offset),
            RegisterRule::ValOffset(offset) => Saved::Is(offset),
            RegisterRule::Register(other) => Saved::In(other.0),
            RegisterRule::Expression(expression) => Saved::AtExpression(bytes(&expression)?),
            RegisterRule::ValExpression(expression) => Saved::IsExpression(bytes(&expression)?),
            RegisterRule::SameValue => Saved::In(number),
            RegisterRule::Undefined | RegisterRule::Architectural | RegisterRule::Constant(_) => Saved::Lost,
        };
        saved.push((number, how));
    }
    Some(Rule::Caller { cfa, saved, interrupted: function.is_signal_trampoline() })
}

impl Rule {
    /// The registers of the caller; `None` when they cannot be told.
    pub(crate) fn apply(&self, values: &Values, mut read: impl FnMut(u64) -> Option<u64>) -> Option<Values> {
        let Self::Caller { cfa, saved, .. } = self else { return None };
        let value = |number: u16| values.get(usize::from(number)).copied().flatten();
        let cfa = match cfa {
            Place::Register(number, offset) => value(*number)?.checked_add_signed(*offset)?,
            Place::Expression(bytes) => evaluate(bytes, values, None, &mut read)?,
        };
        let mut caller: Values = [None; register::COUNT];
        for &number in register::PRESERVED {
            caller[usize::from(number)] = value(number);
        }
        caller[usize::from(register::STACK)] = Some(cfa);
        for (number, how) in saved {
            let found = match how {
                Saved::At(offset) => cfa.checked_add_signed(*offset).and_then(&mut read),
                Saved::Is(offset) => cfa.checked_add_signed(*offset),
                Saved::In(other) => value(*other),
                Saved::AtExpression(bytes) => {
                    evaluate(bytes, values, Some(cfa), &mut read).and_then(&mut read)
                }
                Saved::IsExpression(bytes) => evaluate(bytes, values, Some(cfa), &mut read),
                Saved::Lost => None,
            };
            if let Some(place) = caller.get_mut(usize::from(*number)) {
                *place = found;
            }
        }
        Some(caller)
    }
}

fn evaluate(
    bytes: &[u8],
    values: &Values,
    start: Option<u64>,
    read: &mut impl FnMut(u64) -> Option<u64>,
) -> Option<u64> {
    let encoding = Encoding { format: gimli::Format::Dwarf32, version: 4, address_size: 8 };
    let mut evaluation = Evaluation::new(EndianSlice::new(bytes, LittleEndian), encoding);
    evaluation.set_max_iterations(MAX_STEPS);
    if let Some(start) = start {
        evaluation.set_initial_value(start);
    }
    let mut state = evaluation.evaluate().ok()?;
    for _ in 0..MAX_STEPS {
        state = match state {
            EvaluationResult::Complete => {
                let pieces = evaluation.result();
                return match pieces.first()?.location {
                    gimli::Location::Address { address } => Some(address),
                    gimli::Location::Value { value } => value.to_u64(u64::MAX).ok(),
                    _ => None,
                };
            }
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = values.get(usize::from(register.0)).copied().flatten()?;
                evaluation.resume_with_register(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                evaluation.resume_with_memory(Value::Generic(read(address)?)).ok()?
            }
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_without_end_ends() {
        // DW_OP_skip by -3: back to itself.
        let values = [None; register::COUNT];
        assert_eq!(evaluate(&[0x2f, 0xfd, 0xff], &values, None, &mut |_| None), None);
        // DW_OP_lit5, DW_OP_lit3, DW_OP_plus.
        assert_eq!(evaluate(&[0x35, 0x33, 0x22], &values, None, &mut |_| None), Some(8));
        // A register that is not known.
        assert_eq!(evaluate(&[0x77, 0x08], &values, None, &mut |_| None), None);
    }

    #[test]
    fn garbage_is_no_rule() {
        for byte in [0u8, 1, 0x7f, 0xff] {
            let section = Section { bytes: vec![byte; 4096], address: 0x1000 };
            for index in [None, Some(section.clone())] {
                let rules = Rules::new(section.clone(), index);
                for address in [0, 0x1000, 0x1800, u64::MAX] {
                    assert_eq!(rules.at(address), None);
                }
            }
        }
    }
}
