//! Fields of the target's structs, by offset; nothing where the bytes do not reach.

pub(super) fn u64_at(bytes: &[u8], offset: u32) -> Option<u64> {
    let offset = offset as usize;
    bytes.get(offset..offset.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], offset: u32) -> Option<u32> {
    let offset = offset as usize;
    bytes.get(offset..offset.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u8_at(bytes: &[u8], offset: u32) -> Option<u8> {
    bytes.get(offset as usize).copied()
}
