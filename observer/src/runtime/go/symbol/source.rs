//! Bytes of another process by address, kept in pages, for tables that do not change.
//!
//! Function tables are tens of megabytes in a big program and a snapshot looks at a few hundred places
//! in them, so they are read page by page when asked for. Costs one remote read a page, 16 MiB at most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::memory::RemoteMemory;

const PAGE: u64 = 4096;
const MAX_PAGES: usize = 4096;

/// Where a parser gets its bytes. Addresses are the target's.
pub trait Source {
    /// Fills `into` from `address`, or says that it cannot; a part is nothing.
    fn read(&mut self, address: u64, into: &mut [u8]) -> bool;

    fn u32(&mut self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes).then(|| u32::from_le_bytes(bytes))
    }

    fn u64(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    /// A text that ends with a zero byte, without it; `None` when none comes within `limit` bytes.
    fn c_string(&mut self, address: u64, limit: usize) -> Option<String> {
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < limit {
            // Never across a page that the string may not reach: the next one can be unmapped.
            let length = (64 - at % 64) as usize;
            let mut chunk = [0; 64];
            let chunk = chunk.get_mut(..length)?;
            if !self.read(at, chunk) {
                return None;
            }
            if let Some(end) = chunk.iter().position(|&byte| byte == 0) {
                text.extend_from_slice(chunk.get(..end)?);
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            text.extend_from_slice(chunk);
            at = at.checked_add(length as u64)?;
        }
        None
    }
}

/// `None` where there is nothing to read.
type ByNumber = HashMap<u64, Option<Arc<[u8]>>>;

/// Pages of a process's memory, read once. Copies share what was read.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    memory: RemoteMemory,
    pages: Arc<Mutex<ByNumber>>,
}

impl Pages {
    pub(crate) fn new(memory: RemoteMemory) -> Self {
        Self { memory, pages: Arc::default() }
    }

    fn page(&self, number: u64) -> Option<Arc<[u8]>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= MAX_PAGES && !pages.contains_key(&number) {
            pages.clear();
        }
        let memory = self.memory;
        pages
            .entry(number)
            .or_insert_with(|| {
                let mut page = vec![0; PAGE as usize];
                memory.read_exact(number.checked_mul(PAGE)?, &mut page).ok()?;
                Some(page.into())
            })
            .clone()
    }
}

impl Source for Pages {
    fn read(&mut self, address: u64, into: &mut [u8]) -> bool {
        let mut at = address;
        let mut rest = into;
        while !rest.is_empty() {
            let offset = (at % PAGE) as usize;
            let length = rest.len().min(PAGE as usize - offset);
            let (now, later) = rest.split_at_mut(length);
            let Some(page) = self.page(at / PAGE) else { return false };
            let Some(bytes) = page.get(offset..offset + length) else { return false };
            now.copy_from_slice(bytes);
            rest = later;
            let Some(next) = at.checked_add(length as u64) else { return rest.is_empty() };
            at = next;
        }
        true
    }
}

/// One stretch of bytes at an address, for tests.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice<'a> {
    pub address: u64,
    pub bytes: &'a [u8],
}

#[cfg(test)]
impl Source for Slice<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> bool {
        let Some(offset) = address.checked_sub(self.address).and_then(|offset| usize::try_from(offset).ok())
        else {
            return false;
        };
        let Some(bytes) = offset.checked_add(into.len()).and_then(|end| self.bytes.get(offset..end)) else {
            return false;
        };
        into.copy_from_slice(bytes);
        true
    }
}
