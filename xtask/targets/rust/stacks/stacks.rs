//! Threads of Rust's standard library that sleep for ever; says `ok` once all of them have begun to.

use std::sync::{Condvar, Mutex, RwLock, mpsc};
use std::thread;
use std::time::Duration;

static HELD: Mutex<u32> = Mutex::new(0);
static OTHER: Mutex<u32> = Mutex::new(0);
static CONDITION: Condvar = Condvar::new();
static LOCK: RwLock<u32> = RwLock::new(0);

#[inline(never)]
fn on_mutex() -> u32 {
    *HELD.lock().unwrap() + 1
}

#[inline(never)]
fn on_condition() -> u32 {
    let guard = CONDITION.wait_while(OTHER.lock().unwrap(), |_| true).unwrap();
    *guard + 1
}

#[inline(never)]
fn on_channel() -> u32 {
    let (sender, receiver) = mpsc::channel::<u32>();
    let received = receiver.recv().unwrap();
    drop(sender);
    received + 1
}

#[inline(never)]
fn on_lock() -> u32 {
    *LOCK.read().unwrap() + 1
}

#[inline(never)]
fn on_park() -> u32 {
    loop {
        thread::park();
    }
}

struct Waits;

impl Drop for Waits {
    #[inline(never)]
    fn drop(&mut self) {
        on_park();
    }
}

#[inline(never)]
fn in_a_panic() -> u32 {
    let _waits = Waits;
    panic!("on its way");
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let _held = HELD.lock().unwrap();
    let _lock = LOCK.write().unwrap();
    let entries = [on_mutex, on_condition, on_channel, on_lock, on_park, in_a_panic];
    let threads: Vec<_> = entries.map(|entry| thread::spawn(move || entry() + 1)).into();
    thread::sleep(Duration::from_millis(200));
    println!("ok");
    for thread in threads {
        let _ = thread.join();
    }
}
