//! What an ELF file offers for symbolizing: segments, build id, and which symbol tables are small enough to use.
//!
//! Reads headers only, by `pread`, within bounds: the file belongs to the target. Files are handed to a full
//! symbolizer only when what it would have to load is bounded too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MAX_SEGMENTS: u64 = 512;
const MAX_SECTIONS: u64 = 8192;
const MAX_SECTION_NAMES: u64 = 1 << 20;
const MAX_NOTES: u64 = 64 << 10;
/// A symbol takes 24 bytes here and as much again in an index.
const MAX_SYMBOL_BYTES: u64 = 96 << 20;
/// Debug information beyond this takes seconds and hundreds of megabytes to search; names come without it.
const MAX_DEBUG_BYTES: u64 = 192 << 20;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const SHF_COMPRESSED: u64 = 1 << 11;
const NT_GNU_BUILD_ID: u32 = 3;

/// A part of the file and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub file_offset: u64,
    pub file_size: u64,
    pub address: u64,
}

/// A section that is loaded: where it lies in the file and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub file_offset: u64,
    pub size: u64,
    pub address: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    pub segments: Vec<Segment>,
    pub build_id: Vec<u8>,
    /// Where the kernel, or the dynamic linker, begins the program; 0 in most libraries.
    pub entry: u64,
    /// Has symbol tables (the static one or the dynamic one), none beyond bounds.
    pub symbols: bool,
    /// Has the static symbol table, which names also what is not exported.
    pub static_symbols: bool,
    /// Has lines and inlined functions within bounds, in the file itself.
    pub debug: bool,
    /// Names another file to look into; following that is not left to what the target wrote there.
    pub links_elsewhere: bool,
    /// `.eh_frame`.
    pub unwind_table: Option<Part>,
    /// `.eh_frame_hdr`.
    pub unwind_index: Option<Part>,
}

impl Elf {
    /// `None` when it is no 64-bit little-endian ELF file.
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let header = read_at(file, 0, 64)?;
        let word = Reader(&header);
        if header.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Ok(None);
        }
        let mut elf = Self { entry: word.u64(24).unwrap_or(0), ..Self::default() };
        let (Some(ph_offset), Some(ph_size), Some(ph_count)) = (word.u64(32), word.u16(54), word.u16(56))
        else {
            return Ok(None);
        };
        let mut notes = Vec::new();
        if ph_size == 56 {
            let table = read_at(file, ph_offset, 56 * u64::from(ph_count).min(MAX_SEGMENTS))?;
            for entry in table.chunks_exact(56) {
                elf.add_segment(&Reader(entry), &mut notes);
            }
        }
        for (offset, size) in notes.into_iter().take(16) {
            if elf.build_id.is_empty() {
                elf.build_id = build_id(&read_at(file, offset, size)?);
            }
        }
        elf.read_sections(file, &word)?;
        Ok(Some(elf))
    }

    /// The address, as `nm` prints it, of a place in the file.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let inside = file_offset.checked_sub(segment.file_offset)?;
            (inside < segment.file_size).then(|| segment.address.checked_add(inside))?
        })
    }

    fn add_segment(&mut self, entry: &Reader<'_>, notes: &mut Vec<(u64, u64)>) {
        let (Some(kind), Some(file_offset), Some(address), Some(file_size)) =
            (entry.u32(0), entry.u64(8), entry.u64(16), entry.u64(32))
        else {
            return;
        };
        match kind {
            PT_LOAD => self.segments.push(Segment { file_offset, file_size, address }),
            PT_NOTE => notes.push((file_offset, file_size.min(MAX_NOTES))),
            PT_GNU_EH_FRAME => self.unwind_index = Some(Part { file_offset, size: file_size, address }),
            _ => {}
        }
    }

    /// `.eh_frame` of a file without section headers: its index begins with where that is, relative to itself.
    pub fn unwind_table_behind(&self, index: &[u8]) -> Option<Part> {
        const RELATIVE_4_BYTES: u8 = 0x1b;
        let at = self.unwind_index?;
        if index.get(..2)? != [1, RELATIVE_4_BYTES] {
            return None;
        }
        let distance = i32::from_le_bytes(index.get(4..8)?.try_into().ok()?);
        let address = at.address.checked_add(4)?.checked_add_signed(i64::from(distance))?;
        self.segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.address)?;
            let size = segment.file_size.checked_sub(inside)?;
            Some(Part { file_offset: segment.file_offset.checked_add(inside)?, size, address })
        })
    }

    fn read_sections(&mut self, file: &File, header: &Reader<'_>) -> io::Result<()> {
        let (mut symbol_bytes, mut debug_bytes) = (0u64, 0u64);
        each_section(file, header, |name, section| {
            let Section { kind, address, file_offset, size, is_compressed } = *section;
            if matches!(kind, SHT_SYMTAB | SHT_DYNSYM) {
                symbol_bytes = symbol_bytes.saturating_add(size);
                self.symbols = true;
                self.static_symbols |= kind == SHT_SYMTAB;
            } else if name.starts_with(b".debug_") {
                // A compressed section says how large it becomes.
                let becomes = if is_compressed {
                    Reader(&read_at(file, file_offset, 24)?).u64(8).unwrap_or(u64::MAX)
                } else {
                    size
                };
                debug_bytes = debug_bytes.saturating_add(becomes);
                self.debug |= name == b".debug_info";
            } else if name == b".eh_frame" && !is_compressed {
                self.unwind_table = Some(Part { file_offset, size, address });
            } else if name.starts_with(b".zdebug_") {
                debug_bytes = u64::MAX;
            } else if matches!(name, b".gnu_debuglink" | b".gnu_debugaltlink" | b".debug_sup") {
                self.links_elsewhere = true;
            }
            Ok(())
        })?;
        if symbol_bytes > MAX_SYMBOL_BYTES {
            (self.symbols, self.static_symbols) = (false, false);
        }
        self.debug &= debug_bytes <= MAX_DEBUG_BYTES;
        Ok(())
    }
}

/// A section as its header has it; nothing of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    kind: u32,
    address: u64,
    pub file_offset: u64,
    pub size: u64,
    /// Begins with a header of 24 bytes, whose first word is the kind of compression.
    pub is_compressed: bool,
}

/// The section of a 64-bit little-endian ELF file that has this name: the first, where there are several.
pub(crate) fn section(file: &File, wanted: &[u8]) -> io::Result<Option<Section>> {
    let header = read_at(file, 0, 64)?;
    if header.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let mut found = None;
    each_section(file, &Reader(&header), |name, section| {
        if found.is_none() && name == wanted {
            found = Some(*section);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `visit` with each section and its name.
fn each_section(
    file: &File,
    header: &Reader<'_>,
    mut visit: impl FnMut(&[u8], &Section) -> io::Result<()>,
) -> io::Result<()> {
    let (Some(offset), Some(size), Some(count), Some(names)) =
        (header.u64(40), header.u16(58), header.u16(60), header.u16(62))
    else {
        return Ok(());
    };
    if offset == 0 || size != 64 {
        return Ok(());
    }
    let table = read_at(file, offset, 64 * u64::from(count).min(MAX_SECTIONS))?;
    let name_section = table.chunks_exact(64).nth(usize::from(names)).map(Reader);
    let names = match name_section.and_then(|section| Some((section.u64(24)?, section.u64(32)?))) {
        Some((offset, size)) => read_at(file, offset, size.min(MAX_SECTION_NAMES))?,
        None => Vec::new(),
    };
    for section in table.chunks_exact(64).map(Reader) {
        let (Some(name), Some(kind), Some(flags), Some(file_offset), Some(size)) =
            (section.u32(0), section.u32(4), section.u64(8), section.u64(24), section.u64(32))
        else {
            continue;
        };
        let name = names.get(name as usize..).unwrap_or_default();
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let address = section.u64(16).unwrap_or(0);
        let is_compressed = flags & SHF_COMPRESSED != 0;
        visit(name, &Section { kind, address, file_offset, size, is_compressed })?;
    }
    Ok(())
}

fn build_id(notes: &[u8]) -> Vec<u8> {
    let mut rest = notes;
    // Each note takes at least its 12 bytes of header.
    while let Some(header) = rest.get(..12).map(Reader) {
        let (Some(name), Some(value), Some(kind)) = (header.u32(0), header.u32(4), header.u32(8)) else {
            break;
        };
        let padded = |size: u32| (size as usize).checked_add(3).map(|size| size & !3);
        let (Some(name_size), Some(value_size)) = (padded(name), padded(value)) else { break };
        let Some(value_start) = name_size.checked_add(12) else { break };
        if kind == NT_GNU_BUILD_ID && rest.get(12..16) == Some(b"GNU\0") {
            let value_end = value_start.saturating_add(value.min(64) as usize);
            return rest.get(value_start..value_end).unwrap_or_default().to_vec();
        }
        let Some(next) = value_start.checked_add(value_size).and_then(|end| rest.get(end..)) else { break };
        rest = next;
    }
    Vec::new()
}

/// Up to `size` bytes, fewer where the file ends.
pub(crate) fn read_at(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let size = size.min(length.saturating_sub(offset));
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Little-endian words out of bytes that may be too few.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..)?.first_chunk().copied()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..)?.first_chunk().copied()?))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..)?.first_chunk().copied()?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(bytes: &[u8]) -> Option<Elf> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Elf::read(&file).unwrap()
    }

    #[test]
    fn reads_the_test_program_itself() {
        let elf = Elf::read(&File::open("/proc/self/exe").unwrap()).unwrap().unwrap();
        assert!(elf.symbols && elf.static_symbols && elf.debug && !elf.links_elsewhere);
        assert!(elf.segments.len() >= 2);
        let last = elf.segments.last().unwrap();
        assert_eq!(elf.address_of(last.file_offset + 1), Some(last.address + 1));
        assert_eq!(elf.address_of(u64::MAX), None);
    }

    #[test]
    fn torn_files_never_panic_and_never_load_what_they_claim() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let head = &whole[..4096.min(whole.len())];
        for length in [0, 1, 5, 6, 16, 40, 63, 64, 65, 100, 1000, 4096] {
            let _ = read(&head[..length.min(head.len())]);
        }
        // Every byte of the header in turn at its worst.
        for index in 6..64 {
            for value in [0, 0x7f, 0xff] {
                let mut torn = head.to_vec();
                torn[index] = value;
                let _ = read(&torn);
            }
        }
        assert_eq!(read(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn finds_a_build_id_behind_other_notes_and_survives_endless_ones() {
        let note = |kind: u32, name: &[u8], value: &[u8]| {
            let mut note = Vec::new();
            note.extend((name.len() as u32).to_le_bytes());
            note.extend((value.len() as u32).to_le_bytes());
            note.extend(kind.to_le_bytes());
            note.extend(name);
            note.resize(note.len().next_multiple_of(4), 0);
            note.extend(value);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let notes = [note(1, b"GNU\0", &[1; 16]), note(3, b"GNU\0", &[0xab; 20])].concat();
        assert_eq!(build_id(&notes), [0xab; 20]);
        assert!(build_id(&[0xff; 4096]).is_empty());
        assert!(build_id(&[0; 4096]).is_empty());
        assert!(build_id(&notes[..40]).is_empty());
    }
}
