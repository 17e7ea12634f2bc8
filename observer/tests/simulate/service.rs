//! A simulated service: goroutines one by one, a garbage collected heap, and an imperfect observer of both.
//!
//! Everything random comes from a seed. Truth (who leaks, how fast, how many bytes) is known by construction, so that
//! a diagnosis can be held against it. The observer misses samples, comes late, and tears members.

mod random;
mod world;

use observer::sample::{Frame, Group, GroupId, GroupKind, Place, Runtime, Sample, TargetInfo, WaitsOn};

pub use self::random::Random;
use self::world::World;

pub const KIB: f64 = 1024.0;
pub const MIB: f64 = 1024.0 * 1024.0;

/// How members come.
#[derive(Clone)]
pub enum Arrivals {
    None,
    /// At random, so many a second, from and until.
    Random {
        per_second: f64,
        from: f64,
        until: f64,
    },
    /// Evenly, like a ticker.
    Every {
        seconds: f64,
    },
    /// A burst of so many, every so many seconds, the first after a phase.
    Bursts {
        size: u64,
        every: f64,
        phase: f64,
    },
    /// A rate that depends on time.
    Curve(fn(f64) -> f64),
}

/// How long they stay.
#[derive(Clone, Copy)]
pub enum Stay {
    Forever,
    /// On average, at random.
    Mean(f64),
    Exactly(f64),
    /// All leave together at multiples of this.
    UntilMultipleOf(f64),
    /// A share stays for ever, the others as long as this on average.
    Mixed {
        forever: f64,
        others: f64,
    },
}

#[derive(Clone)]
pub struct Kind {
    pub group: Group,
    pub at_start: u64,
    pub arrivals: Arrivals,
    pub most: u64,
    pub stay: Stay,
    pub stack: f64,
    pub heap: f64,
    /// Of `heap`, what a global reaches too.
    pub also_global: f64,
    /// Of `heap`, what another group reaches too: seen by nobody's closure.
    pub shared: f64,
    /// Share of members that run and come back, a second.
    pub wakes: f64,
    /// Share of the time that a member spends in `flicker` instead.
    pub flicker: Option<(usize, f64)>,
    /// Arrives whenever a member of that kind does, so many each.
    pub follows: Option<(usize, u64)>,
}

impl Kind {
    pub fn new(id: u64, reason: &str, frames: &[(&str, u32)], created_by: (&str, u32)) -> Self {
        let file = |function: &str| format!("/src/{}.go", function.split('.').next().unwrap_or("x"));
        let group = Group {
            id: GroupId(id),
            kind: GroupKind::Goroutine,
            state: "waiting".into(),
            wait_reason: reason.into(),
            frames: frames
                .iter()
                .map(|(function, line)| Frame {
                    function: (*function).into(),
                    file: Some(file(function)),
                    line: Some(*line),
                    ..Frame::default()
                })
                .collect(),
            created_by: Some(Place {
                function: created_by.0.into(),
                file: Some(file(created_by.0)),
                line: Some(created_by.1),
            }),
            ..Group::default()
        };
        Self {
            group,
            at_start: 0,
            arrivals: Arrivals::None,
            most: u64::MAX,
            stay: Stay::Forever,
            stack: 2.0 * KIB,
            heap: 0.5 * KIB,
            also_global: 0.0,
            shared: 0.0,
            wakes: 0.0,
            flicker: None,
            follows: None,
        }
    }

    pub fn with(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut kind = self;
        change(&mut kind);
        kind
    }

    pub fn thread(self) -> Self {
        self.with(|kind| {
            kind.group.kind = GroupKind::Thread;
            kind.group.state = "sleeping".into();
            kind.group.created_by = None;
        })
    }

    pub fn waits_on_one(self, what: &str, address: u64) -> Self {
        self.with(|kind| {
            kind.group.waits_on =
                Some(WaitsOn { kind: what.into(), objects: 1, address: Some(address), ..WaitsOn::default() });
        })
    }
}

#[derive(Clone)]
pub struct Service {
    pub kinds: Vec<Kind>,
    /// Live heap beside the goroutines'.
    pub base_heap: f64,
    /// More of it over time.
    pub cache: fn(f64) -> f64,
    /// Garbage a second.
    pub garbage: f64,
    /// 0 for a program without a collector: then everything is anonymous memory.
    pub gc_percent: f64,
    pub limit: Option<u64>,
    pub seconds: f64,
    pub interval: f64,
    /// Share of samples missed.
    pub missed: f64,
    /// Share of members torn.
    pub torn: f64,
    /// Heap by closure is measured.
    pub retained: bool,
    /// The source tells who ended.
    pub ended: bool,
    /// A restart at this time.
    pub restart: Option<(f64, bool)>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            base_heap: 6.0 * MIB,
            cache: |_| 0.0,
            garbage: 8.0 * MIB,
            gc_percent: 100.0,
            limit: Some(1 << 30),
            seconds: 60.0,
            interval: 1.0,
            missed: 0.03,
            torn: 0.0003,
            retained: true,
            ended: true,
            restart: None,
        }
    }
}

/// What happened: samples, and the members that came to each kind and stayed.
pub struct Run {
    pub target: TargetInfo,
    pub samples: Vec<Sample>,
    /// Count of each kind at the first and the last sample.
    pub first: Vec<u64>,
    pub last: Vec<u64>,
    pub seconds: f64,
}

impl Run {
    /// Members more a second of a kind.
    pub fn rate(&self, kind: usize) -> f64 {
        (self.last[kind] as f64 - self.first[kind] as f64) / self.seconds
    }
}

pub fn target() -> TargetInfo {
    TargetInfo {
        pid: 4242,
        comm: "checkout".into(),
        exe: "/srv/checkout".into(),
        runtime: Runtime { name: "go".into(), version: Some("go1.27.3".into()), stripped: true },
        started_at: "2026-01-02T03:04:05Z".into(),
        ..TargetInfo::default()
    }
}

impl Service {
    pub fn run(&self, seed: u64) -> Run {
        const STEP: f64 = 0.1;
        let mut random = Random::new(seed);
        let mut world = World::new(self, &mut random);
        let mut run =
            Run { target: target(), samples: Vec::new(), first: Vec::new(), last: Vec::new(), seconds: 0.0 };
        let mut next_sample = 0.0;
        let mut first_at = None;
        let mut now = 0.0;
        // The service ran before we came: the heap is somewhere in its cycle.
        world.garbage = random.unit() * world.live(self, 0.0);
        while now <= self.seconds + STEP {
            if let Some((at, told)) = self.restart
                && world.generation_at < at
                && now >= at
            {
                world.restart(self, &mut random, now, told);
            }
            world.step(self, &mut random, now, STEP);
            if now >= next_sample {
                next_sample += self.interval;
                let skip = random.unit() < self.missed && now > 1.0 && now < self.seconds - 1.0;
                if !skip {
                    let at = now + random.unit() * 0.04;
                    let sample = world.sample(self, &mut random, at);
                    run.last = world.alive.clone();
                    if first_at.is_none() {
                        run.first.clone_from(&run.last);
                    }
                    run.seconds = at - *first_at.get_or_insert(at);
                    run.samples.push(sample);
                }
            }
            now += STEP;
        }
        run
    }
}
