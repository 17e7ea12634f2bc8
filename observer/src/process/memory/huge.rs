//! Which pages of a process are huge: one fault brought 2 MiB, not 4 KiB.
//!
//! Asks `PAGEMAP_SCAN` (Linux 6.7) of a pagemap that is open; about 1 µs a block.

use std::fs::File;
use std::os::fd::AsRawFd as _;

/// A huge page, where pages are 4 KiB.
pub(crate) const HUGE_BYTES: u64 = 2 << 20;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PAGE_IS_HUGE: u64 = 1 << 6;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    max_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<ScanArguments>() == 96);

/// Whether the huge page around an address is one; absent where the kernel does not tell.
pub(crate) fn is_huge(pagemap: &File, address: u64) -> Option<bool> {
    let start = address & !(HUGE_BYTES - 1);
    let mut region = Region::default();
    let mut arguments = ScanArguments {
        size: size_of::<ScanArguments>() as u64,
        start,
        end: start.checked_add(HUGE_BYTES)?,
        regions: (&raw mut region) as u64,
        regions_length: 1,
        all_of: PAGE_IS_HUGE,
        returned: PAGE_IS_HUGE,
        ..ScanArguments::default()
    };
    // SAFETY: the kernel reads and writes the arguments, whose size they give, and writes at most the one region that
    // they point to; both outlive the call.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
    match found {
        0 => Some(false),
        1 => Some(region.start <= address && address < region.end),
        _ => None,
    }
}
