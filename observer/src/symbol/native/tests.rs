//! A file that is cut short and made whole again, over and over, while its symbols are looked up.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::process::memory::truncated;

/// The part of the test that may be killed runs in a process of its own; with or without the guard.
const ROLE: &str = "OBSERVER_TEST_TRUNCATED";
/// The longest that a machine may need.
const PATIENCE: Duration = Duration::from_secs(30);

fn again(role: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "symbol::native::tests::a_file_that_is_cut_short_while_it_is_read"])
        .env(ROLE, role)
        .status()
        .unwrap()
}

#[test]
fn a_file_that_is_cut_short_while_it_is_read() {
    match std::env::var(ROLE).as_deref() {
        Ok("guarded") => {
            truncated::survive().unwrap();
            look_up_until(|| truncated::pages() > 0);
            assert!(truncated::pages() > 0, "it was never cut in the middle of a look");
        }
        Ok(_) => look_up_until(|| false),
        Err(_) => {
            let unguarded = again("unguarded");
            assert_eq!(unguarded.signal(), Some(libc::SIGBUS), "{unguarded}");
            assert!(again("guarded").success());
        }
    }
}

fn look_up_until(enough: impl Fn() -> bool) {
    let maps = maps::read(std::process::id()).unwrap();
    let libc = maps.iter().find(|mapping| mapping.path.contains("/libc.so")).unwrap();
    let whole = fs::read(&libc.path).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("libcopy.so");
    fs::write(&copy, &whole).unwrap();
    let file = fs::File::options().write(true).open(&copy).unwrap();
    let module = Module::of_file(&copy);
    let offsets: Vec<u64> = (0..200).map(|n| libc.offset + n * 4096).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                file.set_len(4096).unwrap();
                std::thread::sleep(Duration::from_micros(300));
                file.write_all_at(&whole, 0).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let began = Instant::now();
        while !enough() && began.elapsed() < PATIENCE {
            let before = truncated::pages();
            let found = lookup(&module, &offsets);
            assert_eq!(found.len(), offsets.len());
            if truncated::pages() > before {
                assert!(found.iter().all(|frames| frames[0].function.is_empty()), "names out of zeros");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}
