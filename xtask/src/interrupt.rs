//! Ctrl-C and SIGTERM, so that what xtask started is stopped before xtask ends.
//!
//! A handler notes the signal and does nothing else. Blocking the signals instead would block them in every
//! child too: the mask is inherited over exec, a handler is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to watch.
pub fn watch() {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Where it cannot be had, the signal keeps its usual effect.
        let _ = flag::register(signal, Arc::clone(flag));
    }
}

/// Whether one of the signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::SeqCst))
}
