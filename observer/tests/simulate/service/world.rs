//! The service while it runs: its members one by one, its heap, and what an observer sees of both at a moment.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use observer::sample::{Group, HeapUsage, Memory, Retained, Sample, Totals};

use super::{Arrivals, KIB, MIB, Random, Service, Stay};

#[derive(Clone, Copy)]
struct Member {
    id: u64,
    dies: f64,
    home: usize,
}

pub struct World {
    members: Vec<Member>,
    next_id: u64,
    due: Vec<f64>,
    pub garbage: f64,
    goal: f64,
    peak: f64,
    /// Ids in order, and where each was, at the last sample.
    seen: Vec<(u64, usize)>,
    seen_at: f64,
    /// When who ends, in milliseconds, and of which kind.
    deaths: BinaryHeap<Reverse<(u64, usize)>>,
    pub alive: Vec<u64>,
    held: f64,
    generation: u32,
    pub generation_at: f64,
    load: f64,
}

impl World {
    pub fn new(service: &Service, random: &mut Random) -> Self {
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

    pub fn restart(&mut self, service: &Service, random: &mut Random, now: f64, told: bool) {
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

    pub fn live(&self, service: &Service, now: f64) -> f64 {
        service.base_heap + (service.cache)(now) + self.held
    }

    pub fn step(&mut self, service: &Service, random: &mut Random, now: f64, step: f64) {
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

    pub fn sample(&mut self, service: &Service, random: &mut Random, at: f64) -> Sample {
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
        let go = (service.gc_percent > 0.0).then_some(HeapUsage {
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
                heap: go,
            },
            totals: Totals {
                tasks: Some(goroutines),
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
