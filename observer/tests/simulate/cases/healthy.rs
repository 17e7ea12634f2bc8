//! Services that keep nothing for ever, each close to one that does.

use observer::diagnose::Verdict;

use super::{Arrivals, Case, connections, healthy, healthy_or, quote, random, ticker, with, workers};
use crate::simulate::service::{KIB, Kind, MIB, Service, Stay};

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
