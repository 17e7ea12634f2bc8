//! Which words of a frame hold live pointers: the maps that the program carries for its own collector.
//!
//! Reads pclntab's pc tables and function data, as `runtime/stkframe.go` does. A frame also holds words that
//! are dead, often with pointers from another goroutine's earlier use of the same stack; what they point to is
//! not held by this one, and only these maps tell.

use super::pclntab::Table;
use super::source::Source;

const PCDATA_STACK_MAP_INDEX: u32 = 1;
const FUNCDATA_ARGUMENTS: u32 = 0;
const FUNCDATA_LOCALS: u32 = 1;
const FUNCDATA_STACK_OBJECTS: u32 = 2;

/// Words of one map.
const MAX_WORDS: u32 = 1 << 17;
/// Maps of one function, one for each place with different words alive.
const MAX_MAPS: u32 = 1 << 16;
const MAX_VARIABLES: u64 = 4096;

const WORD: i64 = 8;

/// Where the caller's frame begins above a frame's stack pointer, and the locals end, is the architecture's:
/// amd64 keeps the return address above the frame, arm64 the link register at its bottom.
const RETURN_ADDRESS: i64 = if cfg!(target_arch = "aarch64") { 0 } else { WORD };
const LEAST_FRAME: i64 = if cfg!(target_arch = "aarch64") { WORD } else { 0 };

/// Live pointers of a frame, by their distance from its stack pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameMap {
    pub pointers: Vec<i64>,
    /// Variables whose address was taken: live when something points into them.
    pub variables: Vec<Variable>,
}

/// A variable on the stack, by its distance from the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    pub start: i64,
    pub bytes: u32,
    /// No pointer lies behind so many of its bytes.
    pub pointer_bytes: u32,
}

impl FrameMap {
    /// The map of the function around `pc`, a return address or where a goroutine stopped.
    pub(super) fn find(table: &Table, source: &mut dyn Source, pc: u64) -> Option<Self> {
        let function = table.function(source, pc)?;
        let delta = i64::try_from(table.stack_delta(source, &function, pc)?).ok()?;
        let at = if pc > function.entry { pc - 1 } else { pc };
        // Before the first entry, in a prologue, the first map holds.
        let index = table.pcdata(source, &function, PCDATA_STACK_MAP_INDEX, at)?.max(0) as u32;

        let frame_end = delta + RETURN_ADDRESS;
        let mut locals_end = delta;
        if locals_end > 0 {
            // The saved frame pointer.
            locals_end -= WORD;
        }
        let arguments = frame_end + LEAST_FRAME;
        let mut map = Self::default();
        if locals_end > LEAST_FRAME {
            let data = table.funcdata(source, &function, FUNCDATA_LOCALS)?;
            let bits = Bits::read(source, data, index)?;
            map.take(source, &bits, locals_end - i64::from(bits.words) * WORD)?;
        }
        let argument_bytes = table.argument_bytes(source, &function)?;
        if argument_bytes > 0 {
            let data = table.funcdata(source, &function, FUNCDATA_ARGUMENTS)?;
            let bits = Bits::read(source, data, index)?;
            map.take(source, &bits, arguments)?;
        }
        if let Some(data) = table.funcdata(source, &function, FUNCDATA_STACK_OBJECTS) {
            map.variables = variables(source, data, locals_end, arguments)?;
        }
        Some(map)
    }

    /// Whether what lies where the function around `pc` has its map of locals can be one; `None` where it has none.
    pub(super) fn makes_sense(table: &Table, source: &mut dyn Source, pc: u64) -> Option<bool> {
        let function = table.function(source, pc)?;
        let delta = table.stack_delta(source, &function, pc)?;
        let data = table.funcdata(source, &function, FUNCDATA_LOCALS)?;
        let (Some(maps), Some(words)) = (source.u32(data), source.u32(data.checked_add(4)?)) else {
            return Some(false);
        };
        Some((1..=MAX_MAPS).contains(&maps) && u64::from(words) * WORD.cast_unsigned() <= delta)
    }

    /// Takes in the words of a map that begins `start` above the stack pointer.
    fn take(&mut self, source: &mut dyn Source, bits: &Bits, start: i64) -> Option<()> {
        for first in (0..bits.words).step_by(32) {
            let mut word = [0; 4];
            let bytes = ((bits.words - first).min(32)).div_ceil(8) as usize;
            if !source.read(bits.address.checked_add(u64::from(first / 8))?, word.get_mut(..bytes)?) {
                return None;
            }
            let word = u32::from_le_bytes(word);
            for bit in (0..32).filter(|bit| word >> bit & 1 == 1 && first + bit < bits.words) {
                self.pointers.push(start + i64::from(first + bit) * WORD);
            }
        }
        Some(())
    }
}

/// One bit vector of a `runtime.stackmap`.
struct Bits {
    address: u64,
    words: u32,
}

impl Bits {
    fn read(source: &mut dyn Source, data: u64, index: u32) -> Option<Self> {
        let (count, words) = (source.u32(data)?, source.u32(data.checked_add(4)?)?);
        if words == 0 {
            return Some(Self { address: data, words: 0 });
        }
        if index >= count || words > MAX_WORDS {
            return None;
        }
        let skipped = u64::from(index) * u64::from(words.div_ceil(8));
        Some(Self { address: data.checked_add(8)?.checked_add(skipped)?, words })
    }
}

fn variables(source: &mut dyn Source, data: u64, locals_end: i64, arguments: i64) -> Option<Vec<Variable>> {
    let (low, high) = (source.u32(data)?, source.u32(data.checked_add(4)?)?);
    let count = u64::from(low) | u64::from(high) << 32;
    if count > MAX_VARIABLES {
        return None;
    }
    let mut variables = Vec::new();
    for index in 0..count {
        // off i32, size i32, bytes with pointers i32, where the mask lies u32.
        let record = data.checked_add(8)?.checked_add(index * 16)?;
        let offset = i64::from(source.u32(record)?.cast_signed());
        let bytes = source.u32(record.checked_add(4)?)?;
        let pointer_bytes = source.u32(record.checked_add(8)?)?;
        if bytes >= 1 << 30 || pointer_bytes > bytes {
            return None;
        }
        // Below the end of the locals, or among the arguments.
        let start = if offset < 0 { locals_end + offset } else { arguments + offset };
        variables.push(Variable { start, bytes, pointer_bytes });
    }
    Some(variables)
}

#[cfg(test)]
mod tests {
    use super::super::source::Slice;
    use super::*;

    fn map_of(bytes: &[u8], index: u32, start: i64) -> Option<Vec<i64>> {
        let mut source = Slice { address: 0x1000, bytes };
        let bits = Bits::read(&mut source, 0x1000, index)?;
        let mut map = FrameMap::default();
        map.take(&mut source, &bits, start)?;
        Some(map.pointers)
    }

    /// Three maps of 35 words.
    fn three_maps() -> Vec<u8> {
        let mut bytes = vec![3, 0, 0, 0, 35, 0, 0, 0];
        bytes.extend([0; 5]);
        bytes.extend([0b1000_0001, 0, 0, 0, 0b1111_0100]);
        bytes.extend([0xff; 5]);
        bytes
    }

    #[test]
    fn words_are_taken_from_the_map_that_counts_and_no_further_than_it_goes() {
        let bytes = three_maps();
        assert_eq!(map_of(&bytes, 0, 16), Some(vec![]));
        assert_eq!(map_of(&bytes, 1, 16), Some(vec![16, 16 + 56, 16 + 34 * 8]));
        assert_eq!(map_of(&bytes, 2, -8).unwrap().len(), 35);
        assert_eq!(map_of(&bytes, 3, 16), None);
        assert_eq!(map_of(&[9, 0, 0, 0, 0, 0, 0, 0], 100, 16), Some(vec![]));
    }

    #[test]
    fn broken_maps_are_none_and_end() {
        let bytes = three_maps();
        for length in 0..bytes.len() {
            let _ = map_of(&bytes[..length], 2, 0);
        }
        for bytes in [[0xff; 12], [1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]] {
            assert_eq!(map_of(&bytes, 0, 0), None);
        }
        let mut random = 1u64;
        let mut noise = vec![0u8; 256];
        for _ in 0..20_000 {
            for byte in &mut noise {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (random >> 56) as u8 & (random >> 48) as u8;
            }
            let _ = map_of(&noise, (random >> 60) as u32, 0);
            let mut source = Slice { address: 0x1000, bytes: &noise };
            if let Some(found) = variables(&mut source, 0x1000, 64, 128) {
                assert!(found.iter().all(|variable| variable.pointer_bytes <= variable.bytes));
            }
        }
    }

    #[test]
    fn variables_lie_below_the_end_of_the_locals_or_among_the_arguments() {
        let mut bytes = 2u64.to_le_bytes().to_vec();
        for word in [(-24i32).cast_unsigned(), 24, 16, 0, 8, 32, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        let mut source = Slice { address: 0x1000, bytes: &bytes };
        let found = variables(&mut source, 0x1000, 64, 80).unwrap();
        assert_eq!(
            found,
            [
                Variable { start: 40, bytes: 24, pointer_bytes: 16 },
                Variable { start: 88, bytes: 32, pointer_bytes: 0 }
            ]
        );
    }
}
