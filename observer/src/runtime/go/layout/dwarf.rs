//! Layouts out of DWARF: the structs by name, their members' offsets, and the names of the wait reasons.
//!
//! Reads an ELF file that may be anything, a unit at a time (units.rs): units, entries and members are bounded, a nested
//! path has a fixed depth. Costs about a second for 50 MB of DWARF, and only when no table entry fits.

use std::collections::HashMap;
use std::fs::File;

use gimli::{AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, UnitOffset};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::error::LayoutError;
use super::units::{self, Units};
use super::version::GoVersion;

/// Entries that are looked at before giving up.
const MAX_ENTRIES: usize = 50_000_000;
/// The abbreviations of one unit; Go's linker writes some hundred bytes.
const MAX_ABBREVIATIONS: usize = 64 << 10;
const MAX_MEMBERS: usize = 4096;
const MAX_WAIT_REASONS: u64 = 255;
/// The unit that Go's linker puts all types into.
const UNIT: &[u8] = b"runtime";
/// What Go's compiler writes before its version.
const PRODUCER: &str = "Go cmd/compile ";

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
type Entry<'a> = gimli::DebuggingInformationEntry<Slice<'a>>;

/// One unit, alone in its bytes.
struct Unit<'a> {
    header: gimli::UnitHeader<Slice<'a>>,
    abbreviations: gimli::Abbreviations,
    /// Where it begins in the section that references count from.
    start: u64,
}

/// The structs named `wanted`, which Go's linker puts into one unit, and the version that it was built with.
pub(super) fn read(file: &File, wanted: &[&str]) -> Result<(Types, GoVersion), LayoutError> {
    let abbreviations = units::section(file, ".debug_abbrev")?;
    let mut units = Units::open(file)?;
    let mut types = Types::default();
    let mut version = None;
    let mut entries_left = MAX_ENTRIES;
    while let Some((start, bytes)) = units.next()? {
        // One that cannot be read is some other compiler's.
        let Ok(Some(unit)) = Unit::parse(start, bytes, &abbreviations) else { continue };
        if let Ok(Some(found)) = unit.version() {
            unit.structs(wanted, &mut types, &mut entries_left)?;
            version = Some(found);
        }
        if wanted.first().is_some_and(|&first| types.structs.contains_key(first)) {
            break;
        }
    }
    let version = version.ok_or(LayoutError::NoVersion)?;
    Ok((types, version))
}

impl<'a> Unit<'a> {
    /// `None` for one that has no entries.
    fn parse(start: u64, bytes: &'a [u8], abbreviations: &[u8]) -> Result<Option<Self>, LayoutError> {
        let Some(header) = DebugInfo::new(bytes, LittleEndian).units().next()? else { return Ok(None) };
        let mine = abbreviations.get(header.debug_abbrev_offset().0..).unwrap_or_default();
        let mine = mine.get(..MAX_ABBREVIATIONS).unwrap_or(mine);
        let abbreviations =
            DebugAbbrev::new(mine, LittleEndian).abbreviations(gimli::DebugAbbrevOffset(0))?;
        Ok(Some(Self { header, abbreviations, start }))
    }

    /// The version of the compiler, where it is the unit with Go's types.
    fn version(&self) -> Result<Option<GoVersion>, LayoutError> {
        let mut entries = self.header.entries(&self.abbreviations);
        let Some(root) = entries.next_dfs()? else { return Ok(None) };
        if text(root, gimli::DW_AT_name) != Some(UNIT) {
            return Ok(None);
        }
        let producer = text(root, gimli::DW_AT_producer).and_then(|text| std::str::from_utf8(text).ok());
        let version = producer.and_then(|producer| producer.strip_prefix(PRODUCER));
        Ok(version.and_then(|version| GoVersion::parse(version.split(';').next()?)))
    }

    fn structs(
        &self,
        wanted: &[&str],
        types: &mut Types,
        entries_left: &mut usize,
    ) -> Result<(), LayoutError> {
        let mut entries = self.header.entries(&self.abbreviations);
        while let Some(entry) = entries.next_dfs()? {
            *entries_left = entries_left.checked_sub(1).ok_or(LayoutError::TooLarge)?;
            if entry.tag() != gimli::DW_TAG_structure_type {
                continue;
            }
            let Some(name) = text(entry, gimli::DW_AT_name) else { continue };
            let is_wanted = wanted.iter().chain(INNER).any(|&wanted| name == wanted.as_bytes());
            let name = String::from_utf8_lossy(name).into_owned();
            if !is_wanted || types.structs.contains_key(&name) {
                continue;
            }
            let found = self.members(entry.offset())?;
            types.structs.insert(name, found);
        }
        Ok(())
    }

    fn members(&self, offset: UnitOffset) -> Result<Struct, LayoutError> {
        let mut found = Struct::default();
        let mut tree = self.header.entries_tree(&self.abbreviations, Some(offset))?;
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
            let (Some(name), Some(at)) =
                (text(member, gimli::DW_AT_name), at.and_then(|at| u32::try_from(at).ok()))
            else {
                continue;
            };
            let inner = self.type_of(member).and_then(|at| self.type_name(at));
            found.members.push((String::from_utf8_lossy(name).into_owned(), at, inner));
        }
        Ok(found)
    }

    /// In the same unit, as Go writes it; a reference into another one is not followed.
    fn type_of(&self, entry: &Entry<'a>) -> Option<UnitOffset> {
        match entry.attr_value(gimli::DW_AT_type)? {
            AttributeValue::UnitRef(at) => Some(at),
            AttributeValue::DebugInfoRef(at) => {
                let inside = (at.0 as u64).checked_sub(self.start)?;
                Some(UnitOffset(usize::try_from(inside).ok()?))
            }
            _ => None,
        }
    }

    /// The name of the type at `offset`, through at most two typedefs.
    fn type_name(&self, mut offset: UnitOffset) -> Option<String> {
        for _ in 0..3 {
            let entry = self.header.entry(&self.abbreviations, offset).ok()?;
            if entry.tag() == gimli::DW_TAG_structure_type {
                return Some(String::from_utf8_lossy(text(&entry, gimli::DW_AT_name)?).into_owned());
            }
            if entry.tag() != gimli::DW_TAG_typedef {
                return None;
            }
            offset = self.type_of(&entry)?;
        }
        None
    }
}

/// A text that stands in the entry itself, as Go's linker writes all of them.
fn text<'a>(entry: &Entry<'a>, name: gimli::DwAt) -> Option<&'a [u8]> {
    match entry.attr_value(name)? {
        AttributeValue::String(text) => Some(text.slice()),
        _ => None,
    }
}

/// The names of the wait reasons in a program's file, for the table that is made of it.
pub(super) fn wait_reasons_of(elf: &[u8]) -> Option<Vec<String>> {
    wait_reasons(&ElfFile64::<object::Endianness>::parse(elf).ok()?)
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
