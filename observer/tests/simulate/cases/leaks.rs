//! Services that leak: how members come and how long they stay, what they keep, and what is not seen of it.

use super::{Arrivals, Case, Leak, connections, one, quote, random, story, with};
use crate::simulate::service::{KIB, Kind, MIB, Service, Stay};

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
