//! Finds where fields lie in the running kernel's structs, from its BTF.
//!
//! Reads the bytes of `/sys/kernel/btf/vmlinux` (about 6 MB) once, keeps an index of 4 bytes a type while
//! it works and nothing afterwards. Total: bytes that are no BTF give `None`, never a panic.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
/// Anonymous structs and unions inside one another, and typedefs and qualifiers in a row.
const MAX_DEPTH: u32 = 16;

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// `typedef`, `volatile`, `const`, `restrict`, `type_tag`: stand for another type.
const KINDS_ALIAS: [u32; 5] = [8, 9, 10, 11, 18];

/// BTF, with its structs indexed by name.
pub(crate) struct Btf<'b> {
    types: &'b [u8],
    strings: &'b [u8],
    /// Byte offset in `types` of type id `i + 1`.
    offsets: Vec<u32>,
    /// Type ids of the structs asked for.
    structs: HashMap<&'b str, u32>,
}

/// One type as it stands in the table.
struct Type<'b> {
    kind: u32,
    /// A struct's or union's members have bit offsets with a size in the top byte.
    bitfields: bool,
    count: u32,
    /// A size or another type's id.
    size_or_type: u32,
    rest: &'b [u8],
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

impl<'b> Btf<'b> {
    /// Indexes the table; `structs` are those whose fields will be asked for.
    pub(crate) fn parse(bytes: &'b [u8], structs: &[&str]) -> Option<Self> {
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = u32_at(bytes, 4)? as usize;
        let section = |at: usize| {
            let start = header.checked_add(u32_at(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(u32_at(bytes, at + 4)? as usize)?)
        };
        let mut btf =
            Self { types: section(8)?, strings: section(16)?, offsets: Vec::new(), structs: HashMap::new() };
        let mut offset = 0;
        while offset < btf.types.len() {
            let (name, length, kind) = btf.shape(offset)?;
            btf.offsets.push(u32::try_from(offset).ok()?);
            if kind == KIND_STRUCT
                && let Some(name) = btf.string(name).filter(|name| structs.contains(name))
            {
                let id = u32::try_from(btf.offsets.len()).ok()?;
                btf.structs.entry(name).or_insert(id);
            }
            offset = offset.checked_add(length)?;
        }
        Some(btf)
    }

    /// Byte offset of a field, through any anonymous structs; `path` goes into named ones by dots.
    pub(crate) fn offset_of(&self, name: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(name)?;
        let mut offset = 0u32;
        for field in path.split('.') {
            let (bits, next) = self.member(id, field, MAX_DEPTH)?;
            (bits % 8 == 0).then_some(())?;
            offset = offset.checked_add(bits / 8)?;
            id = next;
        }
        Some(offset)
    }

    pub(crate) fn size_of(&self, name: &str) -> Option<u32> {
        Some(self.at(*self.structs.get(name)?)?.size_or_type)
    }

    /// Name, length and kind of the type that starts at `offset`.
    fn shape(&self, offset: usize) -> Option<(u32, usize, u32)> {
        let info = u32_at(self.types, offset.checked_add(4)?)?;
        let count = (info & 0xffff) as usize;
        let kind = info >> 24 & 0x1f;
        let tail = match kind {
            // fwd, typedef, qualifiers, ptr, func, float, type_tag
            2 | 7..=12 | 16 | 18 => 0,
            // int, var, decl_tag
            1 | 14 | 17 => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
            // enum, func_proto
            6 | 13 => 8 * count,
            _ => return None,
        };
        Some((u32_at(self.types, offset)?, 12 + tail, kind))
    }

    fn at(&self, id: u32) -> Option<Type<'b>> {
        let offset = *self.offsets.get(id.checked_sub(1)? as usize)? as usize;
        let info = u32_at(self.types, offset + 4)?;
        Some(Type {
            kind: info >> 24 & 0x1f,
            bitfields: info >> 31 != 0,
            count: info & 0xffff,
            size_or_type: u32_at(self.types, offset + 8)?,
            rest: self.types.get(offset + 12..)?,
        })
    }

    /// A string of the table, by its offset.
    fn string(&self, offset: u32) -> Option<&'b str> {
        let rest = self.strings.get(offset as usize..)?;
        str::from_utf8(&rest[..rest.iter().position(|&byte| byte == 0)?]).ok()
    }

    /// Bit offset and type of a member, looked for in anonymous members too.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let aggregate = self.resolve(id)?;
        for index in 0..aggregate.count as usize {
            let member = u32_at(aggregate.rest, index * 12)?;
            let kind = u32_at(aggregate.rest, index * 12 + 4)?;
            let bits = u32_at(aggregate.rest, index * 12 + 8)?;
            let bits = if aggregate.bitfields { bits & 0xff_ffff } else { bits };
            if member != 0 {
                if self.string(member)? == name {
                    return Some((bits, kind));
                }
            } else if let Some((inner, found)) = self.member(kind, name, depth) {
                return Some((bits.checked_add(inner)?, found));
            }
        }
        None
    }

    /// The struct or union that an id stands for.
    fn resolve(&self, mut id: u32) -> Option<Type<'b>> {
        for _ in 0..MAX_DEPTH {
            let found = self.at(id)?;
            match found.kind {
                KIND_STRUCT | KIND_UNION => return Some(found),
                // Fields of an array's elements are asked for by the element.
                KIND_ARRAY => return None,
                kind if KINDS_ALIAS.contains(&kind) => id = found.size_or_type,
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct a { u32 x; union { u32 y; struct b named; }; }; struct b { u32 p; u32 z; }
    fn sample() -> Vec<u8> {
        let strings = b"\0a\0b\0x\0y\0z\0named\0p\0";
        let at = |name: &str| {
            let whole = [b"\0", name.as_bytes(), b"\0"].concat();
            strings.windows(whole.len()).position(|window| window == whole).unwrap() as u32 + 1
        };
        let mut types = Vec::new();
        let mut push = |words: &[u32]| types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        push(&[at("x"), 1 << 24, 4, 32]); // 1: int
        push(&[at("b"), 4 << 24 | 2, 8, at("p"), 1, 0, at("z"), 1, 32]); // 2
        push(&[0, 5 << 24 | 2, 8, at("y"), 1, 0, at("named"), 4, 0]); // 3: anonymous union
        push(&[0, 10 << 24, 2]); // 4: const b
        push(&[at("a"), 4 << 24 | 2, 12, at("x"), 1, 0, 0, 3, 32]); // 5
        let mut bytes = Vec::new();
        for word in
            [u32::from(MAGIC) | 1 << 16, 24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]
        {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn finds_fields_through_anonymous_unions_and_qualifiers() {
        let bytes = sample();
        let btf = Btf::parse(&bytes, &["a", "b"]).unwrap();
        assert_eq!(btf.offset_of("a", "x"), Some(0));
        assert_eq!(btf.offset_of("a", "y"), Some(4));
        assert_eq!(btf.offset_of("a", "named.z"), Some(8));
        assert_eq!(btf.offset_of("a", "z"), None);
        assert_eq!(btf.offset_of("c", "z"), None);
        assert_eq!(btf.size_of("b"), Some(8));
    }

    #[test]
    fn survives_any_damage() {
        let bytes = sample();
        for length in 0..bytes.len() {
            let _ = Btf::parse(&bytes[..length], &["a", "b"]).map(|btf| btf.offset_of("a", "named.z"));
        }
        for place in 0..bytes.len() {
            for value in [0, 1, 5, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[place] = value;
                let _ = Btf::parse(&bytes, &["a", "b"]).map(|btf| btf.offset_of("a", "named.z"));
            }
        }
    }
}
