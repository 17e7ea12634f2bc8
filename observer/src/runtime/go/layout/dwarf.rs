//! Layouts out of DWARF: the structs by name, their members' offsets, and the names of the wait reasons.
//!
//! Reads the bytes of an ELF file that may be anything: sections, entries and members are bounded, a nested
//! path has a fixed depth. Costs about a second for 50 MB of DWARF, and only when no table entry fits.

use std::collections::HashMap;
use std::io::Read as _;

use gimli::{AttributeValue, EndianSlice, LittleEndian, UnitOffset};
use object::read::elf::ElfFile64;
use object::{CompressionFormat, Object as _, ObjectSection as _, ObjectSymbol as _};

use super::{GoVersion, Layout, STRUCTS};

/// A section that unpacks to more is not read.
const MAX_SECTION: u64 = 512 << 20;
/// Entries that are looked at before giving up.
const MAX_ENTRIES: usize = 50_000_000;
const MAX_MEMBERS: usize = 4096;
const MAX_WAIT_REASONS: u64 = 255;

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("the file is no 64-bit little-endian ELF file that can be read: {0}")]
    Elf(#[from] object::Error),
    #[error("its debug information cannot be read: {0}")]
    Dwarf(#[from] gimli::Error),
    #[error("its debug information does not describe {0} (built with -ldflags=-w?)")]
    Missing(String),
    #[error("its debug information is larger than observer reads")]
    TooLarge,
    #[error("it does not name the version of Go that it was built with")]
    NoVersion,
}

/// The members of the structs that matter, by struct name.
#[derive(Debug, Default)]
pub(super) struct Types {
    structs: HashMap<String, Struct>,
}

#[derive(Debug, Default)]
struct Struct {
    size: u32,
    /// Name, offset, and the name of the struct that it is of, if it is one.
    members: Vec<(String, u32, Option<String>)>,
}

impl Types {
    pub(super) fn first_of(&self, names: &[&'static str]) -> Result<&'static str, LayoutError> {
        let found = names.iter().find(|&&name| self.structs.contains_key(name));
        found.copied().ok_or_else(|| LayoutError::Missing(names.join(" or ")))
    }

    pub(super) fn size(&self, name: &str) -> Result<u32, LayoutError> {
        self.structs.get(name).map(|found| found.size).ok_or_else(|| LayoutError::Missing(name.to_owned()))
    }

    /// The offset of `path` (`sched.sp`) from the start of struct `name`.
    fn offset(&self, name: &str, path: &str) -> Option<u32> {
        let mut current = self.structs.get(name);
        let mut offset = 0u32;
        for part in path.split('.') {
            let (_, at, inner) = current?.members.iter().find(|(member, ..)| member == part)?;
            offset = offset.checked_add(*at)?;
            current = inner.as_deref().and_then(|inner| self.structs.get(inner));
        }
        Some(offset)
    }
}

/// A field of a layout: one that must be there, or one that some versions lack.
pub(super) trait Resolve: Sized {
    fn resolve(types: &Types, name: &str, paths: &[&str]) -> Result<Self, LayoutError>;
}

impl Resolve for u32 {
    fn resolve(types: &Types, name: &str, paths: &[&str]) -> Result<Self, LayoutError> {
        paths
            .iter()
            .find_map(|path| types.offset(name, path))
            .ok_or_else(|| LayoutError::Missing(format!("{name}.{}", paths.join(" or "))))
    }
}

impl Resolve for Option<u32> {
    fn resolve(types: &Types, name: &str, paths: &[&str]) -> Result<Self, LayoutError> {
        Ok(paths.iter().find_map(|path| types.offset(name, path)))
    }
}

/// Structs that members of the others are of, and that a path goes through.
const INNER: &[&str] = &[
    "runtime.stack",
    "runtime.gobuf",
    "runtime.waitq",
    "runtime.maybeTraceablePtr",
    "runtime.maybeTraceableChan",
];

type Slice<'a> = EndianSlice<'a, LittleEndian>;

pub(super) fn read(elf: &[u8]) -> Result<Layout, LayoutError> {
    let file = ElfFile64::<object::Endianness>::parse(elf)?;
    let mut sections: HashMap<&'static str, Vec<u8>> = HashMap::new();
    for id in [
        gimli::SectionId::DebugAbbrev,
        gimli::SectionId::DebugAddr,
        gimli::SectionId::DebugInfo,
        // Read for nothing, but gimli makes no unit without the line program that it names.
        gimli::SectionId::DebugLine,
        gimli::SectionId::DebugLineStr,
        gimli::SectionId::DebugStr,
        gimli::SectionId::DebugStrOffsets,
    ] {
        sections.insert(id.name(), section(&file, id.name())?);
    }
    let empty: &[u8] = &[];
    let dwarf = gimli::Dwarf::load(|id| -> Result<Slice<'_>, LayoutError> {
        let bytes = sections.get(id.name()).map_or(empty, Vec::as_slice);
        Ok(EndianSlice::new(bytes, LittleEndian))
    })?;
    let types = structs(&dwarf)?;
    let text = version(&file).ok_or(LayoutError::NoVersion)?;
    let version = GoVersion::parse(&text).ok_or(LayoutError::NoVersion)?;
    let mut layout = Layout::resolve(&types, version.minor, format!("its own dwarf ({version})"))?;
    layout.wait_reasons = wait_reasons(&file).unwrap_or_default();
    Ok(layout)
}

/// A section's bytes, unpacked, or nothing where there is none.
fn section(file: &ElfFile64<'_>, name: &str) -> Result<Vec<u8>, LayoutError> {
    let Some(section) = file.section_by_name(name) else { return Ok(Vec::new()) };
    let packed = section.compressed_data()?;
    match packed.format {
        CompressionFormat::None => Ok(packed.data.to_vec()),
        CompressionFormat::Zlib => {
            let mut bytes = Vec::new();
            let decoder = flate2::read::ZlibDecoder::new(packed.data);
            let read = decoder.take(MAX_SECTION + 1).read_to_end(&mut bytes);
            match read {
                Ok(length) if length as u64 <= MAX_SECTION => Ok(bytes),
                Ok(_) => Err(LayoutError::TooLarge),
                Err(_) => Err(LayoutError::Missing(name.to_owned())),
            }
        }
        _ => Err(LayoutError::Missing(format!("{name} in a compression that observer knows"))),
    }
}

fn structs(dwarf: &gimli::Dwarf<Slice<'_>>) -> Result<Types, LayoutError> {
    let mut types = Types::default();
    let mut entries_left = MAX_ENTRIES;
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            entries_left = entries_left.checked_sub(1).ok_or(LayoutError::TooLarge)?;
            if entry.tag() != gimli::DW_TAG_structure_type {
                continue;
            }
            let Some(name) = name(dwarf, &unit, entry) else { continue };
            let wanted = STRUCTS.iter().chain(INNER).any(|&wanted| name.slice() == wanted.as_bytes());
            let name = String::from_utf8_lossy(name.slice()).into_owned();
            if !wanted || types.structs.contains_key(&name) {
                continue;
            }
            let found = members(dwarf, &unit, entry.offset())?;
            types.structs.insert(name, found);
        }
    }
    Ok(types)
}

fn members<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    offset: UnitOffset,
) -> Result<Struct, LayoutError> {
    let mut found = Struct::default();
    let mut tree = unit.entries_tree(Some(offset))?;
    let root = tree.root()?;
    let size = root.entry().attr_value(gimli::DW_AT_byte_size).and_then(|size| size.udata_value());
    found.size = size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0);
    let mut children = root.children();
    while let Some(child) = children.next()? {
        let member = child.entry();
        if member.tag() != gimli::DW_TAG_member || found.members.len() >= MAX_MEMBERS {
            continue;
        }
        let at = member.attr_value(gimli::DW_AT_data_member_location).and_then(|at| at.udata_value());
        let (Some(name), Some(at)) = (name(dwarf, unit, member), at.and_then(|at| u32::try_from(at).ok()))
        else {
            continue;
        };
        let inner = match member.attr_value(gimli::DW_AT_type) {
            Some(AttributeValue::UnitRef(at)) => type_name(dwarf, unit, at),
            Some(AttributeValue::DebugInfoRef(at)) => {
                // In the same unit, as Go writes it; a reference into another one is not followed.
                at.to_unit_offset(&unit.header).and_then(|at| type_name(dwarf, unit, at))
            }
            _ => None,
        };
        found.members.push((String::from_utf8_lossy(name.slice()).into_owned(), at, inner));
    }
    Ok(found)
}

/// The name of the type at `offset`, through at most two typedefs.
fn type_name<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    mut offset: UnitOffset,
) -> Option<String> {
    for _ in 0..3 {
        let entry = unit.entry(offset).ok()?;
        if entry.tag() == gimli::DW_TAG_structure_type {
            return Some(String::from_utf8_lossy(name(dwarf, unit, &entry)?.slice()).into_owned());
        }
        if entry.tag() != gimli::DW_TAG_typedef {
            return None;
        }
        offset = match entry.attr_value(gimli::DW_AT_type)? {
            AttributeValue::UnitRef(at) => at,
            AttributeValue::DebugInfoRef(at) => at.to_unit_offset(&unit.header)?,
            _ => return None,
        };
    }
    None
}

fn name<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    entry: &gimli::DebuggingInformationEntry<Slice<'a>>,
) -> Option<Slice<'a>> {
    dwarf.attr_string(unit, entry.attr_value(gimli::DW_AT_name)?).ok()
}

/// The version in the build information: `\xff Go buildinf:`, 16 bytes of head, then, inline, length and text.
fn version(file: &ElfFile64<'_>) -> Option<String> {
    let section = file.section_by_name(".go.buildinfo")?;
    let data = section.data().ok()?;
    let at = data.windows(14).take(4096).position(|window| window == b"\xff Go buildinf:")?;
    let head = data.get(at..at.checked_add(32)?)?;
    if head[15] & 2 == 0 {
        return None;
    }
    let rest = data.get(at + 32..)?;
    let mut length = 0usize;
    for (index, &byte) in rest.iter().take(3).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let text = rest.get(index + 1..(index + 1).checked_add(length)?)?;
            return Some(std::str::from_utf8(text).ok()?.to_owned());
        }
    }
    None
}

/// `runtime.waitReasonStrings`, an array of string headers, where the file has it relocated.
fn wait_reasons(file: &ElfFile64<'_>) -> Option<Vec<String>> {
    let symbol = file.symbol_by_name("runtime.waitReasonStrings")?;
    let count = (symbol.size() / 16).min(MAX_WAIT_REASONS);
    let bytes = at_address(file, symbol.address(), count * 16)?;
    let mut reasons = Vec::new();
    for header in bytes.chunks_exact(16) {
        let pointer = u64::from_le_bytes(header[..8].try_into().ok()?);
        let length = u64::from_le_bytes(header[8..].try_into().ok()?);
        if length == 0 {
            reasons.push(String::new());
        } else {
            let text = at_address(file, pointer, length.min(64))?;
            reasons.push(String::from_utf8_lossy(text).into_owned());
        }
    }
    Some(reasons)
}

fn at_address<'a>(file: &ElfFile64<'a>, address: u64, length: u64) -> Option<&'a [u8]> {
    file.sections().take(4096).find_map(|section| section.data_range(address, length).ok().flatten())
}
