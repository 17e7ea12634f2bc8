//! Ctrl-C and SIGTERM, so that what xtask started is stopped before xtask ends.
//!
//! The signals are blocked and a thread waits for them: children are not affected, since the standard
//! library gives each child an empty signal mask.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts to watch. Call it before any thread or child exists.
pub fn watch() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    if signals.thread_block().is_err() {
        return; // then the signals keep their usual effect
    }
    thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::SeqCst);
        }
    });
}

/// Whether one of the signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
