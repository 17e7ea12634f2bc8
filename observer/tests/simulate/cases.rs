//! The named services: each leak with its truth, each healthy twin.

mod healthy;
mod leaks;

use observer::diagnose::Verdict;

pub use self::healthy::healthy_services;
pub use self::leaks::{leaks, two_handlers, two_leaks};
pub use super::service::Arrivals;
use super::service::{KIB, Kind, MIB, Service, Stay};

/// A service and the kind that leaks in it, if any; `bytes` is what one leaked member keeps.
pub struct Case {
    pub name: &'static str,
    pub service: Service,
    pub leaks: Vec<Leak>,
    /// Memory does grow, or cannot be known: then it may be said.
    pub or: Option<Verdict>,
}

pub struct Leak {
    pub kind: usize,
    pub bytes: f64,
}

const ALWAYS: (f64, f64) = (0.0, f64::INFINITY);

fn random(per_second: f64) -> Arrivals {
    Arrivals::Random { per_second, from: ALWAYS.0, until: ALWAYS.1 }
}

fn quote(heap: f64) -> Kind {
    Kind::new(
        1,
        "chan send",
        &[("checkout.(*Quoter).fetch", 41), ("checkout.(*Quoter).Get.func1", 33)],
        ("checkout.(*Quoter).Get", 33),
    )
    .with(|kind| {
        kind.heap = heap;
        kind.arrivals = random(16.0);
        kind.group.waits_on = Some(observer::sample::WaitsOn {
            kind: "channel".into(),
            element_type: Some("*checkout.quote".into()),
            capacity: Some(0),
            note: Some("one sender each, no receiver".into()),
            ..Default::default()
        });
    })
}

fn workers() -> Kind {
    Kind::new(20, "select", &[("jobs.worker", 18)], ("jobs.Start", 9)).with(|kind| {
        kind.at_start = 300;
        kind.wakes = 1.7;
    })
}

fn connections(count: u64) -> Kind {
    Kind::new(
        21,
        "IO wait",
        &[
            ("internal/poll.runtime_pollWait", 351),
            ("net.(*conn).Read", 194),
            ("net/http.(*conn).serve", 2027),
        ],
        ("net/http.(*Server).Serve", 3454),
    )
    .with(|kind| {
        kind.at_start = count;
        kind.heap = 6.0 * KIB;
    })
}

fn ticker() -> Kind {
    Kind::new(22, "chan receive", &[("main.metrics", 71)], ("main.main", 30)).with(|kind| {
        kind.at_start = 3;
        kind.wakes = 1.0;
    })
}

fn requests() -> Kind {
    Kind::new(
        23,
        "select",
        &[("shop.(*DB).Query", 88), ("shop.handle", 20), ("net/http.(*conn).serve", 2092)],
        ("net/http.(*Server).Serve", 3454),
    )
    .with(|kind| {
        kind.arrivals = random(60.0);
        kind.stay = Stay::Mean(0.08);
        kind.heap = 20.0 * KIB;
    })
}

fn with(kinds: Vec<Kind>) -> Service {
    let mut all = kinds;
    all.extend([workers(), connections(40), ticker(), requests()]);
    Service { kinds: all, ..Service::default() }
}

fn one(name: &'static str, service: Service, bytes: f64) -> Case {
    Case { name, service, leaks: vec![Leak { kind: 0, bytes }], or: None }
}

fn healthy(name: &'static str, service: Service) -> Case {
    Case { name, service, leaks: Vec::new(), or: None }
}

fn healthy_or(or: Verdict, case: Case) -> Case {
    Case { or: Some(or), ..case }
}

pub fn story() -> Case {
    one("story", with(vec![quote(34.0 * KIB)]), 36.0 * KIB)
}

pub fn growing() -> Vec<Case> {
    vec![
        healthy("a map without end", Service { cache: |t| t * 2.0 * MIB, ..with(vec![]) }),
        healthy(
            "native heap without end",
            Service {
                kinds: vec![Kind::new(2, "futex wait", &[("pool_main", 12)], ("", 0)).thread().with(|k| {
                    k.at_start = 64;
                    k.wakes = 3.0;
                })],
                cache: |t| t * 1.0 * MIB,
                gc_percent: 0.0,
                retained: false,
                ..Service::default()
            },
        ),
    ]
}
