//! The units of an ELF file's `.debug_info`, one after the other.
//!
//! Reads the section's range of the file in small pieces, unpacks it on the way where it is compressed, and keeps one
//! unit: what a large file costs is time, and memory for its largest unit, within bounds.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::error::LayoutError;
use crate::symbol::native::elf::{self, Section};

/// A unit that is larger is not read. Go's linker puts all types of a program into one.
const MAX_UNIT: u64 = 32 << 20;
/// Of all units, unpacked, before giving up: a second or two.
const MAX_INFO: u64 = 256 << 20;
/// Go's linker makes one for each package, C's compiler for each file.
const MAX_UNITS: u32 = 1 << 14;
/// A section that is kept whole.
const MAX_SECTION: u64 = 4 << 20;
const PIECE: usize = 64 << 10;

const COMPRESSION_HEADER: u64 = 24;
const COMPRESSED_BY_ZLIB: [u8; 4] = [1, 0, 0, 0];

/// A section of the file, whole and unpacked.
pub(super) fn section(file: &File, name: &'static str) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    unpacked(file, name)?.take(MAX_SECTION + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECTION { Err(LayoutError::TooLarge) } else { Ok(bytes) }
}

/// Reads one unit after the other.
pub(super) struct Units<'f> {
    info: io::Take<Box<dyn Read + 'f>>,
    /// Where the next one begins in the section.
    at: u64,
    /// Units that are still read.
    left: u32,
    unit: Vec<u8>,
}

impl<'f> Units<'f> {
    pub(super) fn open(file: &'f File) -> Result<Self, LayoutError> {
        let info = unpacked(file, ".debug_info")?.take(MAX_INFO);
        Ok(Self { info, at: 0, left: MAX_UNITS, unit: Vec::new() })
    }

    /// The next unit, header included, and where it lies in the section; `None` behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, LayoutError> {
        self.unit.clear();
        if self.take(4)? == 0 {
            // The section ends here, or what is read of it does.
            return if self.info.limit() == 0 { Err(LayoutError::TooLarge) } else { Ok(None) };
        }
        self.left = self.left.checked_sub(1).ok_or(LayoutError::TooLarge)?;
        let mut length = u64::from(u32::from_le_bytes(self.unit.first_chunk().copied().ok_or_else(cut)?));
        if length == 0xffff_ffff {
            // The 64-bit format.
            self.take(8)?;
            length = u64::from_le_bytes(self.unit.last_chunk().copied().ok_or_else(cut)?);
        }
        if length > MAX_UNIT {
            return Err(LayoutError::TooLarge);
        }
        if self.take(length)? < length {
            return Err(cut().into());
        }
        let start = self.at;
        self.at += self.unit.len() as u64;
        Ok(Some((start, &self.unit)))
    }

    /// Appends so many bytes, or fewer where there are no more.
    fn take(&mut self, length: u64) -> io::Result<u64> {
        Ok(self.info.by_ref().take(length).read_to_end(&mut self.unit)? as u64)
    }
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// A section's bytes as they come.
fn unpacked<'f>(file: &'f File, name: &'static str) -> Result<Box<dyn Read + 'f>, LayoutError> {
    let section = elf::section(file, name.as_bytes())?;
    let Some(Section { file_offset, size, is_compressed, .. }) = section else {
        return Err(LayoutError::Missing(name.to_owned()));
    };
    if !is_compressed {
        return Ok(Box::new(BufReader::with_capacity(PIECE, Part { file, at: file_offset, left: size })));
    }
    let kind = elf::read_at(file, file_offset, 4)?;
    if kind != COMPRESSED_BY_ZLIB {
        return Err(LayoutError::Missing(format!("{name} in a compression that observer knows")));
    }
    let packed = Part {
        file,
        at: file_offset.saturating_add(COMPRESSION_HEADER),
        left: size.saturating_sub(COMPRESSION_HEADER),
    };
    Ok(Box::new(flate2::bufread::ZlibDecoder::new(BufReader::with_capacity(PIECE, packed))))
}

/// A range of a file.
struct Part<'f> {
    file: &'f File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(buffer.get_mut(..length).unwrap_or_default(), self.at)?;
        self.at = self.at.saturating_add(read as u64);
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const INFO: &str = ".debug_info";

    /// An ELF file with one section of this size, which begins with these bytes; the rest is a hole.
    fn file(name: &str, begins: &[u8], size: u64, is_compressed: bool) -> File {
        let names = format!("\0{name}\0");
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[40..48].copy_from_slice(&64u64.to_le_bytes());
        elf[58..64].copy_from_slice(&[64, 0, 2, 0, 1, 0]);
        let start = 64 + 2 * 64 + names.len() as u64;
        for (name, flags, offset, size) in
            [(1u32, u64::from(is_compressed) << 11, start, size), (0, 0, 64 + 2 * 64, names.len() as u64)]
        {
            elf.extend(name.to_le_bytes());
            elf.extend(1u32.to_le_bytes());
            for word in [flags, 0, offset, size, 0, 0, 0] {
                elf.extend(word.to_le_bytes());
            }
            elf.truncate(elf.len().next_multiple_of(64));
        }
        elf.extend(names.as_bytes());
        elf.extend(begins);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&elf).unwrap();
        file.set_len(start + size).unwrap();
        file
    }

    fn packed(bytes: u64) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(vec![0; 24], flate2::Compression::fast());
        encoder.get_mut()[..4].copy_from_slice(&COMPRESSED_BY_ZLIB);
        io::copy(&mut io::repeat(0).take(bytes), &mut encoder).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn units_come_one_after_the_other() {
        let two = [&3u32.to_le_bytes()[..], b"abc", &2u32.to_le_bytes()[..], b"de"].concat();
        let file = file(INFO, &two, two.len() as u64, false);
        let mut units = Units::open(&file).unwrap();
        assert_eq!(units.next().unwrap(), Some((0, &b"\x03\0\0\0abc"[..])));
        assert_eq!(units.next().unwrap(), Some((7, &b"\x02\0\0\0de"[..])));
        assert_eq!(units.next().unwrap(), None);
    }

    #[test]
    fn a_unit_that_claims_to_be_large_is_not_read() {
        for claims in [&0x7fff_ffffu32.to_le_bytes()[..], &[0xff; 12], b"\xff\xff\xff\xff\0\0\0\0\x01\0\0\0"]
        {
            let file = file(INFO, claims, 1 << 40, false);
            let mut units = Units::open(&file).unwrap();
            assert!(matches!(units.next(), Err(LayoutError::TooLarge)), "{claims:x?}");
            assert!(units.unit.capacity() < 1 << 10);
        }
    }

    #[test]
    fn what_is_cut_or_unpacks_to_more_than_it_may_is_an_error() {
        let cut = file(INFO, &100u32.to_le_bytes(), 20, false);
        assert!(matches!(Units::open(&cut).unwrap().next(), Err(LayoutError::Unreadable(_))));

        let bomb = packed(MAX_SECTION + 1);
        let bomb = file(".debug_abbrev", &bomb, bomb.len() as u64, true);
        assert!(matches!(section(&bomb, ".debug_abbrev"), Err(LayoutError::TooLarge)));
        let most = packed(MAX_SECTION);
        let most = file(".debug_abbrev", &most, most.len() as u64, true);
        assert_eq!(section(&most, ".debug_abbrev").unwrap().len() as u64, MAX_SECTION);
        assert!(matches!(section(&most, INFO), Err(LayoutError::Missing(_))));
        // The last part of the stream is not there.
        let torn = packed(MAX_SECTION);
        let torn = file(".debug_abbrev", &torn[..torn.len() / 2], torn.len() as u64 / 2, true);
        assert!(section(&torn, ".debug_abbrev").is_err());
    }

    #[test]
    fn all_units_together_are_bounded() {
        let file = file(INFO, &(MAX_UNIT as u32).to_le_bytes(), 1 << 40, false);
        let mut units = Units::open(&file).unwrap();
        assert_eq!(units.next().unwrap().map(|(_, unit)| unit.len() as u64), Some(MAX_UNIT + 4));
        assert_eq!(units.next().unwrap(), Some((MAX_UNIT + 4, &[0; 4][..])));
        assert_eq!(units.info.limit(), MAX_INFO - MAX_UNIT - 8);
        units.info.set_limit(0);
        assert!(matches!(units.next(), Err(LayoutError::TooLarge)));
        units.info.set_limit(8);
        units.left = 0;
        assert!(matches!(units.next(), Err(LayoutError::TooLarge)));
    }
}
