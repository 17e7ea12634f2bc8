//! Targets in every state that the page shows, by the simulated service.

use observer::board::TargetState;
use observer::diagnose::{Deadlock, History, diagnose};
use observer::sample::{DeadlockedThread, Degraded, Frame, Growth, GrowthSite, Mapped};
use observer::timeline::Timeline;

use super::shown::{BEGAN, state};
use crate::simulate::cases;
use crate::simulate::service::{MIB, Run, Service};

pub fn leak(seconds: f64) -> Run {
    Service { seconds, interval: 3.0, ..cases::story().service }.run(3)
}

pub fn healthy(seconds: f64, seed: u64) -> Run {
    let mut service = cases::story().service;
    service.kinds.remove(0);
    Service { seconds, interval: 3.0, ..service }.run(seed)
}

pub fn growing(seconds: f64) -> Run {
    let mut service = cases::story().service;
    service.kinds.remove(0);
    Service { seconds, interval: 3.0, cache: |at| at * 0.4 * MIB, ..service }.run(5)
}

/// A case by its name, as it is.
pub fn case(name: &str) -> Run {
    let all = cases::leaks().into_iter().chain([cases::two_leaks()]);
    let wanted = all.into_iter().find(|case| case.name == name);
    wanted.unwrap_or_else(|| panic!("no case {name}")).service.run(6)
}

/// Nothing of the kernel: what that costs is said.
pub fn without_ebpf(name: &str) -> TargetState {
    let mut run = case("threads");
    for sample in &mut run.samples {
        sample.degraded = vec![
            Degraded {
                feature: "ebpf".into(),
                reason: "no permission to load eBPF programs: threads without frame pointers have short stacks, and \
                         what grew is not named"
                    .into(),
                remedy: "run as root, or with CAP_BPF and CAP_PERFMON".into(),
            },
            Degraded {
                feature: "growth".into(),
                reason: "page faults are not sampled".into(),
                remedy: "see ebpf".into(),
            },
        ];
    }
    state(name, &run)
}

/// With growth sites, losses, a deadlock and things that do not work.
pub fn full(name: &str, mut run: Run) -> TargetState {
    let frame = |function: &str, file: &str, line: u32| Frame {
        function: function.to_owned(),
        file: Some(file.to_owned()),
        line: Some(line),
        ..Frame::default()
    };
    let site = |bytes: f64, via: &str, frames: Vec<Frame>| GrowthSite {
        frames: frames.into(),
        bytes: bytes as u64,
        via: via.into(),
        ..GrowthSite::default()
    };
    if let Some(last) = run.samples.last_mut() {
        last.growth = Some(Growth {
            page_faults: 182_332,
            sample_period: 61,
            touched_bytes: 512 << 20,
            returned_bytes: 83 << 20,
            sites: vec![
                site(
                    401.0 * MIB,
                    "mmap",
                    vec![
                        frame("runtime.mallocgc", "/usr/lib/go/src/runtime/malloc.go", 1055),
                        frame("runtime.newobject", "/usr/lib/go/src/runtime/malloc.go", 1714),
                        frame("checkout.(*Quoter).Get", "/src/checkout/quote.go", 31),
                        frame("checkout.(*Server).serve", "/src/checkout/server.go", 88),
                        frame("net/http.(*conn).serve", "/usr/lib/go/src/net/http/server.go", 2092),
                    ],
                ),
                site(
                    28.0 * MIB,
                    "mmap",
                    vec![
                        frame("runtime.malg", "/usr/lib/go/src/runtime/proc.go", 5081),
                        frame("checkout.(*Quoter).Get", "/src/checkout/quote.go", 33),
                    ],
                ),
            ],
            mapped: Mapped {
                source: "maps".into(),
                mapped_bytes: [("mmap".into(), 612 << 20)].into(),
                unmapped_bytes: [("mmap".into(), 4 << 20)].into(),
            },
        });
        last.degraded = vec![Degraded {
            feature: "futex owners".into(),
            reason: "the target's glibc is not known, so who holds a mutex is not shown".into(),
            remedy: "update observer".into(),
        }];
        last.losses.insert("stacks_truncated".to_owned(), 12);
    }
    let mut state = state(name, &run);
    let mut diagnosis = (*state.diagnosis).clone();
    diagnosis.deadlocks = vec![Deadlock {
        description:
            "thread 4251 (db-pool-1) holds the mutex 0x7f0012a0 that thread 4252 (db-pool-2) waits for, \
                      which holds 0x7f0012c8 that the first waits for"
                .into(),
        threads: [(4252, 4251, "db-pool-2", "refund"), (4251, 4252, "db-pool-1", "transfer")]
            .map(|(tid, held_by, name, function)| DeadlockedThread {
                tid,
                held_by,
                name: name.to_owned(),
                wait_reason: "mutex lock".into(),
                waits_for: "mutex".into(),
                frames: vec![
                    frame("pthread_mutex_lock", "/src/glibc/nptl/pthread_mutex_lock.c", 93),
                    frame(function, "/src/bank/account.c", tid - 4200),
                ]
                .into(),
                ..DeadlockedThread::default()
            })
            .to_vec(),
        length: 2,
        ..Deadlock::default()
    }];
    state.diagnosis = diagnosis.into();
    state
}

/// A day of the same, sparsely told: restarts at night, a gap while observer was away.
pub fn long(name: &str) -> TargetState {
    let runs = [healthy(600.0, 8), leak(900.0)];
    let mut timeline = Timeline::default();
    let (mut history, mut at) = (History::new(), BEGAN - 40_000.0);
    for (life, run) in runs.iter().enumerate() {
        for sample in &run.samples {
            let mut sample = sample.clone();
            sample.generation = life as u32;
            timeline.push(at + sample.at_seconds * 20.0, &sample);
        }
        at += run.samples.last().map_or(0.0, |last| last.at_seconds) * 20.0 + 60.0;
        if life == 0 {
            at += 3_600.0;
        }
    }
    for sample in &runs[1].samples {
        history.push(sample.clone());
    }
    let mut state = state(name, &runs[1]);
    state.diagnosis = diagnose(&history, &runs[1].target).into();
    state.last_sampled = timeline.last().unwrap().at;
    state.restarts = 1;
    *state.timeline() = timeline;
    state
}

/// Fifty services of a machine, most of them in order.
pub fn fifty() -> Vec<TargetState> {
    let names = ["api", "auth", "billing", "cart", "feed", "mail", "search", "session", "stock", "worker"];
    (0..50)
        .map(|number| {
            let name = format!("{}-{}.service", names[number % names.len()], number / names.len());
            match number {
                7 => full(&name, leak(300.0)),
                13 => state(&name, &growing(300.0)),
                21 => TargetState { up: false, ..state(&name, &healthy(120.0, 9)) },
                34 => state(&name, &healthy(6.0, 2)),
                seed => state(&name, &healthy(150.0, seed as u64)),
            }
        })
        .collect()
}
