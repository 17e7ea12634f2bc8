//! Threads that pile up at places with known names, memory that grows, and healthy twins of both, in Rust.
//!
//!     mutex      ten threads a second wait for a std mutex
//!     parked     ten threads a second wait for a parking_lot mutex
//!     blocking   tokio's blocking pool gets ten tasks a second that wait for a message that never comes
//!     grow       2.5 MiB a second are remembered
//!     healthy    a pool on a channel, and a blocking pool whose tasks end
//!
//! Each thread of a pile keeps 64 KiB. At most 400 are started.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MOST: usize = 400;

fn scratch() -> Vec<u8> {
    vec![7; 64 << 10]
}

#[inline(never)]
fn update_stock(stock: &Mutex<u64>) -> u64 {
    let held = scratch();
    let mut stock = stock.lock().unwrap();
    *stock += u64::from(held[5]);
    *stock
}

#[inline(never)]
fn update_prices(prices: &parking_lot::Mutex<u64>) -> u64 {
    let held = scratch();
    let mut prices = prices.lock();
    *prices += u64::from(held[5]);
    *prices
}

#[inline(never)]
fn await_message(messages: &Receiver<u8>) -> u8 {
    let held = scratch();
    messages.recv().unwrap_or(held[5])
}

#[inline(never)]
fn remember(all: &mut Vec<Vec<u8>>) {
    all.push(vec![1; 256 << 10]);
}

fn named(name: String, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name).spawn(work).unwrap();
}

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let (stock, prices) = (Arc::new(Mutex::new(0)), Arc::new(parking_lot::Mutex::new(0)));
    let (_held, _also) = (stock.lock().unwrap(), prices.lock());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .max_blocking_threads(MOST)
        .build()
        .unwrap();
    let mut senders = Vec::new();
    let mut all = Vec::new();
    let mut jobs = Vec::new();
    if mode == "healthy" {
        for worker in 0..24 {
            let (send, receive) = channel::<u8>();
            jobs.push(send);
            named(format!("worker-{worker}"), move || while receive.recv().is_ok() {});
        }
    }
    println!("ready");
    for turn in 0..4000 {
        if turn < MOST {
            match mode.as_str() {
                "mutex" => {
                    let stock = Arc::clone(&stock);
                    named(format!("stock-{turn}"), move || assert!(update_stock(&stock) > 0));
                }
                "parked" => {
                    let prices = Arc::clone(&prices);
                    named(format!("prices-{turn}"), move || assert!(update_prices(&prices) > 0));
                }
                "blocking" => {
                    let (send, receive) = channel();
                    senders.push(send);
                    runtime.spawn_blocking(move || await_message(&receive));
                }
                "grow" => remember(&mut all),
                _ => {}
            }
        }
        if mode == "healthy" {
            let _ = jobs[turn % jobs.len()].send(1);
            for _ in 0..4 {
                runtime.spawn_blocking(|| thread::sleep(Duration::from_millis(20)));
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}
