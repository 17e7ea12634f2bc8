//! A hash for addresses and other words of a target: one multiplication.
//!
//! What is hashed is the target's, and so is the harm of a collision: tables that use it answer for that target alone.

use std::hash::Hasher;

/// Spreads addresses over a table's buckets.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value);
    }
}

/// One round of a multiply-and-fold hash.
pub(crate) fn mix(value: u64) -> u64 {
    let wide = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xd6e8_feb8_6659_fd93u64);
    (wide >> 64) as u64 ^ wide as u64
}
