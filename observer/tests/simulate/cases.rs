//! The named services: each leak with its truth, each healthy twin.

#![allow(dead_code, reason = "shared by several tests, none uses all of it")]

use observer::diagnose::Verdict;

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

pub fn leaks() -> Vec<Case> {
    let mut cases = vec![story()];
    cases.push(one(
        "no closure measured",
        Service { retained: false, ..with(vec![quote(34.0 * KIB)]) },
        36.0 * KIB,
    ));
    cases.push(one(
        "who ended is unknown",
        Service { ended: false, ..with(vec![quote(34.0 * KIB)]) },
        36.0 * KIB,
    ));
    cases.push(one(
        "one every two seconds",
        with(vec![quote(200.0 * KIB).with(|k| k.arrivals = Arrivals::Every { seconds: 2.0 })]),
        202.0 * KIB,
    ));
    cases.push(one(
        "bursts every 10 s",
        with(vec![
            quote(34.0 * KIB).with(|k| k.arrivals = Arrivals::Bursts { size: 60, every: 10.0, phase: 4.0 }),
        ]),
        36.0 * KIB,
    ));
    cases.push(one(
        "bursts every 15 s",
        with(vec![
            quote(34.0 * KIB).with(|k| k.arrivals = Arrivals::Bursts { size: 90, every: 15.0, phase: 3.0 }),
        ]),
        36.0 * KIB,
    ));
    cases.push(one(
        "an old leak goes on",
        with(vec![quote(4.0 * KIB).with(|k| k.at_start = 20_000)]),
        6.0 * KIB,
    ));
    cases.push(one(
        "a share of the requests stays",
        with(vec![quote(30.0 * KIB).with(|k| {
            k.arrivals = random(60.0);
            k.stay = Stay::Mixed { forever: 0.1, others: 0.15 };
        })]),
        32.0 * KIB,
    ));
    cases.push(one("no memory to speak of", with(vec![quote(100.0)]), 2.0 * KIB + 100.0));
    cases.push(one(
        "small and fast",
        with(vec![quote(0.5 * KIB).with(|k| k.arrivals = random(300.0))]),
        2.5 * KIB,
    ));
    cases.push(one(
        "large and slow",
        with(vec![quote(2.0 * MIB).with(|k| k.arrivals = random(0.7))]),
        2050.0 * KIB,
    ));
    cases.push(one(
        "a registry holds them too",
        with(vec![quote(40.0 * KIB).with(|k| k.also_global = 30.0 * KIB)]),
        42.0 * KIB,
    ));
    cases.push(one(
        "pollers",
        with(vec![
            Kind::new(1, "sleep", &[("time.Sleep", 338), ("watch.poll", 12)], ("watch.Start", 7)).with(|k| {
                k.arrivals = random(3.0);
                k.wakes = 1.0;
                k.heap = 16.0 * KIB;
                k.flicker = Some((1, 0.03));
            }),
            Kind::new(2, "", &[("watch.poll", 14)], ("watch.Start", 7)).with(|k| {
                k.group.state = "runnable".into();
                k.heap = 16.0 * KIB;
            }),
        ]),
        18.0 * KIB,
    ));
    cases.push(one(
        "contexts never cancelled",
        with(vec![Kind::new(1, "select", &[("feed.(*Sub).run", 55)], ("feed.Subscribe", 31)).with(|k| {
            k.arrivals = random(5.0);
            k.heap = 8.0 * KIB;
        })]),
        10.0 * KIB,
    ));
    cases.push(one(
        "starts in the middle",
        with(vec![
            quote(34.0 * KIB)
                .with(|k| k.arrivals = Arrivals::Random { per_second: 16.0, from: 20.0, until: 1e9 }),
        ]),
        36.0 * KIB,
    ));
    cases.push(one(
        "waiting parent",
        with(vec![
            Kind::new(1, "chan send", &[("fan.fetch", 40), ("fan.Do.func1", 22)], ("fan.Do", 20)).with(|k| {
                k.arrivals = random(6.0);
                k.heap = 3.0 * KIB;
            }),
            Kind::new(
                2,
                "semacquire",
                &[
                    ("sync.(*WaitGroup).Wait", 116),
                    ("fan.Do", 30),
                    ("fan.handle", 9),
                    ("net/http.(*conn).serve", 2092),
                ],
                ("net/http.(*Server).Serve", 3454),
            )
            .with(|k| {
                k.follows = Some((0, 1));
                k.heap = 28.0 * KIB;
                k.stack = 8.0 * KIB;
            }),
            Kind::new(
                3,
                "IO wait",
                &[("internal/poll.runtime_pollWait", 351), ("net/http.(*connReader).backgroundRead", 690)],
                ("net/http.(*connReader).startBackgroundRead", 686),
            )
            .with(|k| k.follows = Some((0, 1))),
        ]),
        // The child's own, and its parent's.
        (5.0 + 36.0) * KIB,
    ));
    cases.push(one(
        "a request shared by parent and child",
        Service {
            garbage: 2.0 * MIB,
            ..with(vec![
                Kind::new(1, "chan send", &[("fan.fetch", 40), ("fan.Do.func1", 22)], ("fan.Do", 20)).with(
                    |k| {
                        k.arrivals = random(6.0);
                        k.heap = 3.0 * KIB;
                    },
                ),
                Kind::new(
                    2,
                    "semacquire",
                    &[
                        ("sync.(*WaitGroup).Wait", 116),
                        ("fan.Do", 30),
                        ("fan.handle", 9),
                        ("net/http.(*conn).serve", 2092),
                    ],
                    ("net/http.(*Server).Serve", 3454),
                )
                .with(|k| {
                    k.follows = Some((0, 1));
                    k.heap = 28.0 * KIB;
                    k.shared = 27.0 * KIB;
                    k.stack = 8.0 * KIB;
                }),
                Kind::new(
                    3,
                    "IO wait",
                    &[
                        ("internal/poll.runtime_pollWait", 351),
                        ("net/http.(*connReader).backgroundRead", 690),
                    ],
                    ("net/http.(*connReader).startBackgroundRead", 686),
                )
                .with(|k| k.follows = Some((0, 1))),
            ])
        },
        // The child's own, and its parent's.
        (5.0 + 36.0) * KIB,
    ));
    cases.push(one(
        "response bodies never closed",
        Service {
            garbage: 4.0 * MIB,
            ..with(vec![
                Kind::new(
                    1,
                    "select",
                    &[("net/http.(*persistConn).readLoop", 2325)],
                    ("net/http.(*Transport).dialConn", 1874),
                )
                .with(|k| {
                    k.arrivals = random(8.0);
                    k.heap = 12.0 * KIB;
                }),
                Kind::new(
                    2,
                    "select",
                    &[("net/http.(*persistConn).writeLoop", 2519)],
                    ("net/http.(*Transport).dialConn", 1875),
                )
                .with(|k| {
                    k.follows = Some((0, 1));
                    k.heap = 4.0 * KIB;
                }),
                connections(0).with(|k| {
                    k.group.id.0 = 3;
                    k.follows = Some((0, 1));
                    k.heap = 6.0 * KIB;
                }),
            ])
        },
        // Differences also see the servers' ends of the connections, 8 KiB each.
        22.0 * KIB,
    ));
    cases.push(one(
        "lock never released",
        with(vec![
            Kind::new(
                1,
                "sync.Mutex.Lock",
                &[
                    ("sync.(*Mutex).Lock", 90),
                    ("store.(*Cache).Get", 51),
                    ("shop.read", 8),
                    ("net/http.(*conn).serve", 2092),
                ],
                ("net/http.(*Server).Serve", 3454),
            )
            .with(|k| {
                k.arrivals = random(9.0);
                k.heap = 14.0 * KIB;
            }),
            Kind::new(
                2,
                "sync.Mutex.Lock",
                &[
                    ("sync.(*Mutex).Lock", 90),
                    ("store.(*Cache).Put", 67),
                    ("shop.write", 8),
                    ("net/http.(*conn).serve", 2092),
                ],
                ("net/http.(*Server).Serve", 3454),
            )
            .with(|k| {
                k.arrivals = random(2.0);
                k.heap = 14.0 * KIB;
            }),
            Kind::new(
                3,
                "chan send",
                &[("store.(*Cache).publish", 80), ("store.(*Cache).Put", 70)],
                ("net/http.(*Server).Serve", 3454),
            )
            .with(|k| k.at_start = 1),
        ]),
        // The larger group's own, and its companion's in proportion.
        16.0 * KIB * (11.0 / 9.0),
    ));
    cases.push(one(
        "threads",
        Service {
            kinds: vec![
                Kind::new(1, "futex wait", &[("__futex_abstimed_wait", 0), ("worker_main", 77)], ("", 0))
                    .thread()
                    .with(|k| {
                        k.arrivals = random(2.0);
                        k.stack = 24.0 * KIB;
                        k.heap = 60.0 * KIB;
                    }),
                Kind::new(2, "futex wait", &[("__futex_abstimed_wait", 0), ("pool_main", 12)], ("", 0))
                    .thread()
                    .with(|k| {
                        k.at_start = 64;
                        k.wakes = 3.0;
                    }),
            ],
            gc_percent: 0.0,
            retained: false,
            ..Service::default()
        },
        84.0 * KIB,
    ));
    cases.push(one(
        "a restart before it",
        Service { seconds: 90.0, restart: Some((25.0, true)), ..with(vec![quote(34.0 * KIB)]) },
        36.0 * KIB,
    ));
    cases.push(one(
        "a restart nobody reported",
        Service { seconds: 90.0, restart: Some((25.0, false)), ..with(vec![quote(34.0 * KIB)]) },
        36.0 * KIB,
    ));
    cases.push(one(
        "after hours of peace",
        Service {
            seconds: 3_000.0,
            interval: 5.0,
            garbage: 2.0 * MIB,
            ..with(vec![
                quote(34.0 * KIB)
                    .with(|k| k.arrivals = Arrivals::Random { per_second: 2.0, from: 2_700.0, until: 1e9 }),
            ])
        },
        36.0 * KIB,
    ));
    cases
}

pub fn two_leaks() -> Case {
    let second = Kind::new(
        2,
        "sync.WaitGroup.Wait",
        &[("sync.(*WaitGroup).Wait", 116), ("mail.(*Batch).flush", 61)],
        ("mail.(*Batch).Add", 44),
    )
    .with(|k| {
        k.arrivals = random(8.0);
        k.heap = 10.0 * KIB;
    });
    Case {
        name: "two leaks",
        service: with(vec![quote(34.0 * KIB), second]),
        leaks: vec![Leak { kind: 0, bytes: 36.0 * KIB }, Leak { kind: 1, bytes: 12.0 * KIB }],
        or: None,
    }
}

pub fn two_handlers() -> Case {
    let handler = |id: u64, name: &str, rate: f64| {
        Kind::new(
            id,
            "chan receive",
            &[(name, 15), ("net/http.HandlerFunc.ServeHTTP", 2220), ("net/http.(*conn).serve", 2092)],
            ("net/http.(*Server).Serve", 3454),
        )
        .with(|k| {
            k.arrivals = random(rate);
            k.heap = 9.0 * KIB;
        })
    };
    Case {
        name: "two handlers",
        service: with(vec![handler(1, "shop.cart", 6.0), handler(2, "shop.search", 3.0)]),
        leaks: vec![Leak { kind: 0, bytes: 11.0 * KIB }, Leak { kind: 1, bytes: 11.0 * KIB }],
        or: None,
    }
}

pub fn healthy_services() -> Vec<Case> {
    let conn = |count: u64| connections(count);
    let mut cases =
        vec![healthy("fixed story", with(vec![quote(34.0 * KIB).with(|k| k.stay = Stay::Mean(0.2))]))];
    cases.push(healthy(
        "pool grows to its size",
        with(vec![
            Kind::new(1, "chan receive", &[("pool.worker", 14)], ("pool.(*Pool).grow", 30))
                .waits_on_one("channel", 0xc000_1000)
                .with(|k| {
                    k.arrivals = random(12.0);
                    k.most = 400;
                    k.wakes = 0.8;
                }),
        ]),
    ));
    cases.push(healthy(
        "pool grows slowly and stops",
        with(vec![Kind::new(1, "select", &[("pool.worker", 14)], ("pool.(*Pool).grow", 30)).with(|k| {
            k.arrivals = random(12.0);
            k.most = 450;
        })]),
    ));
    cases.push(healthy(
        "pool approaches its size",
        with(vec![
            Kind::new(1, "select", &[("pool.worker", 14)], ("pool.(*Pool).grow", 30))
                .with(|k| k.arrivals = Arrivals::Curve(|t| 25.0 * (-t / 15.0).exp())),
        ]),
    ));
    cases.push(healthy(
        "cache fills and stops",
        Service { cache: |t| (t / 25.0).min(1.0) * 120.0 * MIB, ..with(vec![]) },
    ));
    cases.push(healthy(
        "cache fills ever more slowly",
        Service { cache: |t| (1.0 - (-t / 10.0).exp()) * 120.0 * MIB, ..with(vec![]) },
    ));
    cases.push(healthy(
        "burst drains",
        with(vec![quote(34.0 * KIB).with(|k| {
            k.arrivals = Arrivals::Random { per_second: 100.0, from: 10.0, until: 25.0 };
            k.stay = Stay::Mean(9.0);
        })]),
    ));
    cases.push(healthy(
        "sawtooth of goroutines",
        with(vec![quote(34.0 * KIB).with(|k| {
            k.arrivals = random(40.0);
            k.stay = Stay::UntilMultipleOf(17.0);
        })]),
    ));
    cases.push(healthy(
        "sawtooth that rises at the end",
        with(vec![quote(34.0 * KIB).with(|k| {
            k.arrivals = random(40.0);
            k.stay = Stay::UntilMultipleOf(33.0);
        })]),
    ));
    cases.push(healthy("garbage", Service { garbage: 40.0 * MIB, base_heap: 60.0 * MIB, ..with(vec![]) }));
    cases.push(healthy(
        "idle heap without collections",
        Service { garbage: 0.05 * MIB, base_heap: 60.0 * MIB, ..with(vec![]) },
    ));
    cases.push(healthy(
        "idle connections",
        Service {
            kinds: vec![conn(20_000), workers(), ticker()],
            base_heap: 20.0 * MIB,
            ..Service::default()
        },
    ));
    cases.push(healthy(
        "idle connections that come and go",
        Service {
            kinds: vec![
                conn(3_000).with(|k| {
                    k.arrivals = random(60.0);
                    k.stay = Stay::Mean(50.0);
                }),
                workers(),
            ],
            ..Service::default()
        },
    ));
    cases.push(healthy_or(
        Verdict::Growing,
        healthy(
            "connections grow and leave",
            Service {
                kinds: vec![
                    conn(200).with(|k| {
                        k.arrivals = random(60.0);
                        k.stay = Stay::Mean(40.0);
                    }),
                    workers(),
                ],
                ..Service::default()
            },
        ),
    ));
    cases.push(healthy_or(
        Verdict::Growing,
        healthy(
            "handlers at rest grow and leave",
            with(vec![Kind::new(1, "select", &[("chat.(*Client).write", 90)], ("chat.accept", 50)).with(
                |k| {
                    k.arrivals = random(20.0);
                    k.stay = Stay::Mean(60.0);
                },
            )]),
        ),
    ));
    cases.push(healthy_or(
        Verdict::Growing,
        healthy(
            "connections ramp and stay",
            Service {
                kinds: vec![
                    conn(50).with(|k| {
                        k.arrivals = random(25.0);
                        k.heap = 1.0 * KIB;
                    }),
                    workers(),
                    ticker(),
                ],
                ..Service::default()
            },
        ),
    ));
    cases.push(healthy_or(
        Verdict::Growing,
        healthy(
            "web sockets ramp and stay",
            with(vec![
                Kind::new(
                    1,
                    "select",
                    &[("chat.(*Client).write", 90), ("chat.serve", 60), ("net/http.(*conn).serve", 2092)],
                    ("net/http.(*Server).Serve", 3454),
                )
                .with(|k| {
                    k.arrivals = random(15.0);
                    k.heap = 1.0 * KIB;
                }),
                Kind::new(
                    2,
                    "IO wait",
                    &[
                        ("internal/poll.runtime_pollWait", 351),
                        ("chat.(*Client).read", 70),
                        ("chat.serve.func1", 58),
                    ],
                    ("chat.serve", 58),
                )
                .with(|k| {
                    k.follows = Some((0, 1));
                    k.heap = 1.0 * KIB;
                }),
            ]),
        ),
    ));
    cases.push(healthy(
        "workers wake",
        with(vec![Kind::new(1, "chan receive", &[("pool.worker", 14)], ("pool.Start", 30)).with(|k| {
            k.at_start = 500;
            k.wakes = 5.0;
        })]),
    ));
    cases.push(healthy(
        "start-up",
        with(vec![
            Kind::new(1, "select", &[("plugin.run", 14)], ("plugin.Start", 30))
                .with(|k| k.arrivals = Arrivals::Random { per_second: 30.0, from: 0.0, until: 8.0 }),
            Kind::new(2, "chan receive", &[("raft.loop", 14)], ("raft.Start", 30))
                .with(|k| k.arrivals = Arrivals::Random { per_second: 5.0, from: 2.0, until: 14.0 }),
        ]),
    ));
    cases.push(healthy(
        "sleepers",
        with(vec![Kind::new(1, "sleep", &[("time.Sleep", 338), ("retry.later", 9)], ("retry.Do", 5)).with(
            |k| {
                k.arrivals = random(4.0);
                k.stay = Stay::Exactly(45.0);
            },
        )]),
    ));
    cases.push(healthy(
        "a queue for a semaphore",
        with(vec![
            Kind::new(1, "chan send", &[("limit.acquire", 9), ("shop.render", 5)], ("shop.start", 5)).with(
                |k| {
                    k.arrivals = Arrivals::Curve(|t| 40.0 + 15.0 * (t / 9.0).sin());
                    k.stay = Stay::Mean(3.0);
                },
            ),
        ]),
    ));
    cases.push(healthy_or(
        Verdict::InsufficientData,
        healthy(
            "a leak that stopped",
            with(vec![quote(34.0 * KIB).with(|k| {
                k.at_start = 9_000;
                k.arrivals = Arrivals::Random { per_second: 16.0, from: 0.0, until: 20.0 };
            })]),
        ),
    ));
    cases.push(healthy(
        "native and flat",
        Service {
            kinds: vec![Kind::new(2, "futex wait", &[("pool_main", 12)], ("", 0)).thread().with(|k| {
                k.at_start = 64;
                k.wakes = 3.0;
            })],
            gc_percent: 0.0,
            retained: false,
            ..Service::default()
        },
    ));
    cases
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
