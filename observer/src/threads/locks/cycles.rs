//! Circles in who waits for whom. Pure; takes time in proportion to the threads, whatever they wait for.

use std::collections::{BTreeMap, HashMap};

/// Threads that wait for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Each waits for the next, the last for the first, which has the lowest number.
    pub threads: Vec<u32>,
    /// Those outside that wait for one of them, at first or at last.
    pub behind: u64,
}

enum Mark {
    /// On the walk that is going on, at this place.
    OnWalk(usize),
    /// It leads to the cycle of this number, or to none.
    Leads(Option<usize>),
}

/// All cycles; each thread waits for one other at most.
pub(super) fn find(waits_for: &BTreeMap<u32, u32>) -> Vec<Cycle> {
    let mut cycles: Vec<Cycle> = Vec::new();
    let mut marks: HashMap<u32, Mark> = HashMap::with_capacity(waits_for.len());
    for &start in waits_for.keys() {
        let mut walk: Vec<u32> = Vec::new();
        let mut at = start;
        // Each step marks one thread, and no thread is marked twice: the walk ends.
        let leads = loop {
            match marks.get(&at) {
                Some(Mark::Leads(to)) => break *to,
                Some(Mark::OnWalk(place)) => {
                    let mut threads = walk.split_off(*place);
                    let lowest =
                        threads.iter().enumerate().min_by_key(|(_, tid)| **tid).map_or(0, |(at, _)| at);
                    threads.rotate_left(lowest);
                    for &tid in &threads {
                        marks.insert(tid, Mark::Leads(Some(cycles.len())));
                    }
                    cycles.push(Cycle { threads, behind: 0 });
                    break Some(cycles.len() - 1);
                }
                None => {}
            }
            let Some(&next) = waits_for.get(&at) else {
                break None;
            };
            marks.insert(at, Mark::OnWalk(walk.len()));
            walk.push(at);
            at = next;
        };
        if let Some(cycle) = leads.and_then(|cycle| cycles.get_mut(cycle)) {
            cycle.behind += walk.len() as u64;
        }
        for tid in walk {
            marks.insert(tid, Mark::Leads(leads));
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(edges: &[(u32, u32)]) -> Vec<(Vec<u32>, u64)> {
        let found = find(&edges.iter().copied().collect());
        found.into_iter().map(|cycle| (cycle.threads, cycle.behind)).collect()
    }

    #[test]
    fn finds_each_circle_once_and_counts_who_queues() {
        assert_eq!(cycles(&[]), []);
        assert_eq!(cycles(&[(1, 2), (2, 3), (4, 2)]), []);
        assert_eq!(cycles(&[(5, 5)]), [(vec![5], 0)]);
        assert_eq!(cycles(&[(9, 4), (4, 9), (1, 9), (2, 1), (3, 8)]), [(vec![4, 9], 2)]);
        assert_eq!(
            cycles(&[(3, 1), (1, 2), (2, 3), (10, 11), (11, 10), (12, 10), (20, 20)]),
            [(vec![1, 2, 3], 0), (vec![10, 11], 1), (vec![20], 0)]
        );
    }

    /// Every graph of some threads: the walk ends and agrees with following each thread for itself.
    #[test]
    fn agrees_with_following_each_thread() {
        const THREADS: u32 = 5;
        let choices = THREADS + 1;
        for graph in 0..choices.pow(THREADS) {
            let edges: BTreeMap<u32, u32> = (0..THREADS)
                .map(|tid| (tid, graph / choices.pow(tid) % choices))
                .filter(|(_, to)| *to < THREADS)
                .collect();
            let follow = |mut at: u32| {
                for _ in 0..THREADS {
                    at = *edges.get(&at)?;
                }
                Some(at)
            };
            let found = find(&edges);
            let inside: Vec<u32> = found.iter().flat_map(|cycle| cycle.threads.iter().copied()).collect();
            let behind: u64 = found.iter().map(|cycle| cycle.behind).sum();
            let stuck = edges.keys().filter(|tid| follow(**tid).is_some()).count();
            assert_eq!(inside.len() + behind as usize, stuck, "{edges:?}");
            for cycle in &found {
                for (place, tid) in cycle.threads.iter().enumerate() {
                    assert_eq!(edges[tid], cycle.threads[(place + 1) % cycle.threads.len()], "{edges:?}");
                }
            }
        }
    }

    #[test]
    fn a_long_chain_is_no_deeper_than_a_short_one() {
        let chain: BTreeMap<u32, u32> = (0..200_000).map(|tid| (tid, tid + 1)).collect();
        assert_eq!(find(&chain), []);
        let round: BTreeMap<u32, u32> = (0..200_000).map(|tid| (tid, (tid + 1) % 200_000)).collect();
        assert_eq!(find(&round)[0].threads.len(), 200_000);
    }
}
