//! The Go version that a program was built with, from its build information.
//!
//! Reads bytes of the mapped file; the blob is there in stripped programs too (Go 1.18 and later
//! write the version into it, so no pointer has to be followed).

/// What the blob begins with; it lies at a multiple of 16.
pub(super) const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
pub(super) const ALIGNMENT: usize = 16;
/// The header, a length and a version are within this.
pub(super) const BLOB_BYTES: usize = 32 + 2 + MAX_VERSION;
const MAX_VERSION: usize = 128;
/// The strings follow the header in place.
const INLINE_STRINGS: u8 = 2;

/// `go1.27.3` from a blob that begins with [`MAGIC`].
pub(super) fn parse(blob: &[u8]) -> Option<String> {
    if !blob.starts_with(MAGIC) || blob.get(15)? & INLINE_STRINGS == 0 {
        return None;
    }
    let mut at = 32;
    let mut length = 0usize;
    for shift in [0, 7] {
        let byte = *blob.get(at)?;
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let text = blob.get(at..at.checked_add(length)?)?;
    let text = std::str::from_utf8(text).ok()?;
    let sane = length <= MAX_VERSION
        && (text.starts_with("go") || text.starts_with("devel"))
        && text.chars().all(|character| character.is_ascii_graphic() || character == ' ');
    sane.then(|| text.to_owned())
}

/// Where blobs may begin in a stretch of memory whose first byte lies at a multiple of [`ALIGNMENT`].
pub(super) fn find(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes
        .chunks_exact(ALIGNMENT)
        .enumerate()
        .filter(|(_, chunk)| chunk.starts_with(MAGIC))
        .map(|(index, _)| index * ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(version: &[u8]) -> Vec<u8> {
        let mut blob = MAGIC.to_vec();
        blob.extend([8, INLINE_STRINGS]);
        blob.resize(32, 0);
        blob.push(version.len() as u8);
        blob.extend(version);
        blob
    }

    #[test]
    fn reads_the_version_and_refuses_what_is_none() {
        assert_eq!(parse(&blob(b"go1.27.3")).as_deref(), Some("go1.27.3"));
        assert_eq!(parse(&blob(b"devel go1.28-abc X:foo")).as_deref(), Some("devel go1.28-abc X:foo"));
        assert_eq!(parse(&blob(b"go1.27\x1b[31m")), None);
        assert_eq!(parse(&blob(b"rust")), None);
        let whole = blob(b"go1.21.13");
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "cut at {length}");
        }
        let mut memory = vec![0; 64];
        memory.extend(&whole);
        assert_eq!(find(&memory).collect::<Vec<_>>(), [64]);
    }
}
