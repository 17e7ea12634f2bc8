//! The kernel half of observer. One module a source; see ARCHITECTURE.md for the choice of hooks.
#![no_std]
#![no_main]

mod allocations;
mod bound;
mod census;
mod exact;
mod floor;
mod growth;
mod layout;
mod lifecycle;
mod loss;
mod registers;
mod stack;
mod target;
mod waits;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
