//! Outlives files that are cut short while they are mapped.
//!
//! The symbols of a target are read from its files by a library that maps them. A page of a mapping that lies behind
//! the end of its file kills its reader, by SIGBUS, and whoever owns the file can bring that about at any time. With
//! [`survive`] such a page is one of zeros from then on: garbage, which what a target owns may always be. [`pages`]
//! tells that it happened.

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::c_int;

/// A page of this machine, once that is known.
static PAGE: AtomicUsize = AtomicUsize::new(0);
static PAGES: AtomicU64 = AtomicU64::new(0);

/// From now on, in the whole process, for as long as it runs.
pub fn survive() -> io::Result<()> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    let page = page.and_then(|page| usize::try_from(page).ok()).filter(|page| page.is_power_of_two());
    PAGE.store(page.ok_or_else(|| io::Error::other("no page size"))?, Ordering::Relaxed);
    // SAFETY: all zeros is a valid `sigaction`: no flags, no signal blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the action is whole, and its handler does only what a handler of signals may.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many pages were replaced so far.
pub fn pages() -> u64 {
    PAGES.load(Ordering::Relaxed)
}

/// Atomics and system calls only; `mmap` is none of those that POSIX lists, but on Linux it is one system call.
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands over a whole `siginfo_t`; of a SIGBUS it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let page = PAGE.load(Ordering::Relaxed);
    if code == libc::BUS_ADRERR && page > 0 {
        // SAFETY: the page is mapped, by a file that has nothing there; who reads it would have been killed, and finds
        // zeros now. No Rust reference sees bytes change that it could have read before.
        let mapped = unsafe {
            let errno = *libc::__errno_location();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let start = (address & !(page - 1)) as *mut c_void;
            let mapped = libc::mmap(start, page, libc::PROT_READ, flags, -1, 0);
            *libc::__errno_location() = errno;
            mapped
        };
        if mapped != libc::MAP_FAILED {
            PAGES.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
    // SAFETY: without a handler the same instruction ends the process, as it would have.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
