//! A simulated service: goroutines one by one, a garbage collected heap, and an imperfect observer of both.
//!
//! Everything random comes from a seed. Truth (who leaks, how fast, how many bytes) is known by construction, so that
//! a diagnosis can be held against it. The observer misses samples, comes late, and tears members.

#![allow(dead_code, reason = "shared by several tests, none uses all of it")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use observer::sample::{
    Frame, GoMemory, Group, GroupId, GroupKind, Memory, Place, Retained, Runtime, Sample, TargetInfo, Totals,
    WaitsOn,
};

pub const KIB: f64 = 1024.0;
pub const MIB: f64 = 1024.0 * 1024.0;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 50.0 {
            // Normal approximation by twelve uniforms.
            let normal: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
            return (mean + normal * mean.sqrt()).round().max(0.0) as u64;
        }
        let limit = (-mean).exp();
        let (mut k, mut product) = (0, self.unit());
        while product > limit {
            k += 1;
            product *= self.unit();
        }
        k
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

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

#[derive(Clone, Copy)]
struct Member {
    id: u64,
    dies: f64,
    home: usize,
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

struct World {
    members: Vec<Member>,
    next_id: u64,
    due: Vec<f64>,
    garbage: f64,
    goal: f64,
    peak: f64,
    /// Ids in order, and where each was, at the last sample.
    seen: Vec<(u64, usize)>,
    seen_at: f64,
    /// When who ends, in milliseconds, and of which kind.
    deaths: BinaryHeap<Reverse<(u64, usize)>>,
    alive: Vec<u64>,
    held: f64,
    generation: u32,
    generation_at: f64,
    load: f64,
}

impl World {
    fn new(service: &Service, random: &mut Random) -> Self {
        let mut world = Self {
            members: Vec::new(),
            next_id: 1,
            due: vec![0.0; service.kinds.len()],
            garbage: 0.0,
            goal: 0.0,
            peak: 0.0,
            seen: Vec::new(),
            seen_at: 0.0,
            deaths: BinaryHeap::new(),
            alive: vec![0; service.kinds.len()],
            held: 0.0,
            generation: 0,
            generation_at: 0.0,
            load: 1.0,
        };
        world.populate(service, random, 0.0);
        world
    }

    fn populate(&mut self, service: &Service, random: &mut Random, now: f64) {
        for (home, kind) in service.kinds.iter().enumerate() {
            for _ in 0..kind.at_start {
                self.join(service, random, home, now);
            }
            self.due[home] = match &kind.arrivals {
                Arrivals::Every { seconds } => now + random.unit() * seconds,
                Arrivals::Bursts { phase, .. } => now + phase,
                _ => 0.0,
            };
        }
    }

    fn restart(&mut self, service: &Service, random: &mut Random, now: f64, told: bool) {
        self.members.clear();
        self.deaths.clear();
        self.alive.fill(0);
        self.held = 0.0;
        self.garbage = 0.0;
        self.peak = 0.0;
        self.generation_at = now;
        if told {
            self.generation += 1;
            self.seen.clear();
        }
        self.populate(service, random, now);
    }

    fn join(&mut self, service: &Service, random: &mut Random, home: usize, now: f64) {
        let kind = &service.kinds[home];
        let dies = match kind.stay {
            Stay::Forever => f64::INFINITY,
            Stay::Mean(mean) => now + random.exponential(mean),
            Stay::Exactly(seconds) => now + seconds,
            Stay::UntilMultipleOf(seconds) => ((now / seconds).floor() + 1.0) * seconds,
            Stay::Mixed { forever, .. } if random.unit() < forever => f64::INFINITY,
            Stay::Mixed { others, .. } => now + random.exponential(others),
        };
        self.members.push(Member { id: self.next_id, dies, home });
        self.alive[home] += 1;
        self.held += kind.heap;
        if dies.is_finite() {
            self.deaths.push(Reverse(((dies * 1000.0) as u64, home)));
        }
        self.next_id += 1;
        for (other, follower) in service.kinds.iter().enumerate() {
            if let Some((leader, each)) = follower.follows
                && leader == home
            {
                for _ in 0..each {
                    self.join(service, random, other, now);
                }
            }
        }
    }

    fn live(&self, service: &Service, now: f64) -> f64 {
        service.base_heap + (service.cache)(now) + self.held
    }

    fn step(&mut self, service: &Service, random: &mut Random, now: f64, step: f64) {
        // Load wanders by a tenth.
        self.load = (self.load + (random.unit() - 0.5) * 0.05).clamp(0.85, 1.15);
        while let Some(Reverse((at, home))) = self.deaths.peek().copied()
            && at as f64 <= now * 1000.0
        {
            self.deaths.pop();
            self.alive[home] -= 1;
            self.held -= service.kinds[home].heap;
        }
        for (home, kind) in service.kinds.iter().enumerate() {
            let come = match &kind.arrivals {
                Arrivals::None => 0,
                Arrivals::Random { per_second, from, until } if now >= *from && now < *until => {
                    random.poisson(per_second * self.load * step)
                }
                Arrivals::Random { .. } => 0,
                Arrivals::Every { seconds } => {
                    let mut come = 0;
                    while self.due[home] <= now {
                        self.due[home] += seconds;
                        come += 1;
                    }
                    come
                }
                Arrivals::Bursts { size, every, .. } => {
                    if self.due[home] <= now {
                        self.due[home] += every;
                        *size
                    } else {
                        0
                    }
                }
                Arrivals::Curve(rate) => random.poisson(rate(now) * step),
            };
            for _ in 0..come.min(kind.most.saturating_sub(self.alive[home])) {
                self.join(service, random, home, now);
            }
        }
        self.garbage += service.garbage * self.load * step;
        let live = self.live(service, now);
        if service.gc_percent > 0.0 {
            if self.goal == 0.0 {
                self.goal = (live * (1.0 + service.gc_percent / 100.0)).max(4.0 * MIB);
            }
            if live + self.garbage >= self.goal {
                // What is allocated during the collection survives it.
                self.garbage = service.garbage * self.load * step * random.unit();
                self.goal = (live * (1.0 + service.gc_percent / 100.0)).max(4.0 * MIB);
            }
        } else {
            self.garbage = 0.0;
        }
    }

    fn sample(&mut self, service: &Service, random: &mut Random, at: f64) -> Sample {
        let mut groups: Vec<Group> = service.kinds.iter().map(|kind| kind.group.clone()).collect();
        let mut ended = vec![0u64; groups.len()];
        let mut torn = 0;
        let elapsed = at - self.seen_at;
        self.members.retain(|member| (member.dies * 1000.0).floor() > (at * 1000.0).floor());
        let mut present = Vec::with_capacity(self.members.len());
        // Both lists are in the order of ids: one walk finds who stayed, came and went.
        let mut before = self.seen.iter().peekable();
        for member in &self.members {
            while let Some((_, home)) = before.next_if(|(id, _)| *id < member.id) {
                groups[*home].left += 1;
                ended[*home] += 1;
            }
            let was = before.next_if(|(id, _)| *id == member.id).map(|(_, home)| *home);
            let kind = &service.kinds[member.home];
            if random.unit() < service.torn {
                torn += 1;
                if let Some(home) = was {
                    groups[home].left += 1;
                }
                continue;
            }
            let home = match kind.flicker {
                Some((other, share)) if random.unit() < share => other,
                _ => member.home,
            };
            present.push((member.id, home));
            groups[home].count += 1;
            match was {
                Some(before) if before == home => {
                    let moved = kind.wakes > 0.0 && random.unit() < 1.0 - (-kind.wakes * elapsed).exp();
                    groups[home].moved += u64::from(moved);
                }
                Some(before) => {
                    groups[before].left += 1;
                    groups[home].joined += 1;
                }
                None => groups[home].joined += 1,
            }
        }
        for (_, home) in before {
            groups[*home].left += 1;
            ended[*home] += 1;
        }
        self.seen_at = at;
        if self.seen.is_empty() {
            for group in &mut groups {
                group.joined = 0;
            }
        }
        self.seen = present;
        for (home, group) in groups.iter_mut().enumerate() {
            let kind = &service.kinds[home];
            group.ended = service.ended.then_some(ended[home]);
            group.stack_bytes = (kind.stack * group.count as f64) as u64;
            if service.retained && group.count > 0 {
                let noise = 1.0 + (random.unit() - 0.5) * 0.04;
                let exclusive = (kind.heap - kind.also_global - kind.shared) * noise;
                group.retained = Some(Retained {
                    sampled_members: group.count.min(64),
                    exclusive_bytes_per_member: exclusive,
                    also_global_bytes_per_member: kind.also_global,
                    standard_error_bytes: exclusive * 0.02,
                    truncated_members: 0,
                    ..Retained::default()
                });
                group.retained_bytes = Some((exclusive * group.count as f64) as u64);
            }
            if let Some(on) = &mut group.waits_on
                && on.address.is_none()
            {
                on.objects = group.count;
            }
        }
        let goroutines = groups.iter().map(|g| g.count).sum();
        groups.retain(|group| group.count > 0);
        let live = self.live(service, at);
        let objects = live + self.garbage;
        let stacks: f64 =
            self.alive.iter().zip(&service.kinds).map(|(n, kind)| *n as f64 * kind.stack).sum::<f64>()
                + 512.0 * KIB;
        self.peak = (objects * 1.06 + stacks).max(self.peak * 0.999);
        let resident = 14.0 * MIB + self.peak + random.unit() * 0.3 * MIB;
        let go = (service.gc_percent > 0.0).then_some(GoMemory {
            heap_in_use_bytes: (objects * 1.06) as u64,
            heap_objects_bytes: objects as u64,
            stack_in_use_bytes: stacks as u64,
            collections: None,
        });
        Sample {
            at_seconds: at,
            took_seconds: 0.002,
            generation: self.generation,
            memory: Memory {
                resident_bytes: resident as u64,
                anonymous_bytes: (resident - 12.0 * MIB) as u64,
                limit_bytes: service.limit,
                limit_usage_bytes: service.limit.map(|_| (resident + 5.0 * MIB) as u64),
                go,
            },
            totals: Totals {
                goroutines: Some(goroutines),
                threads: 12,
                groups: groups.len() as u64,
                members_left_out: 0,
            },
            groups,
            losses: if torn > 0 {
                BTreeMap::from([("torn_reads".to_owned(), torn)])
            } else {
                BTreeMap::new()
            },
            ..Sample::default()
        }
    }
}
