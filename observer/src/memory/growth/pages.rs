//! The sampled pages of a process, by page number: bounded, and thinned without bias when there are too many.

use std::collections::BTreeMap;
use std::io;

use super::via::Via;
use crate::memory::smaps::Held;

/// Pages kept; at one sample in 61 faults these stand for 30 GiB.
const MAX_PAGES: usize = 1 << 17;

/// So many samples in a row say how much they stand for.
const CAPPED_SAMPLES: usize = 64;

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The number of the stack that touched it last.
    pub stack: u32,
    /// Pages that it stands for.
    pub weight: u64,
    pub via: Via,
    /// The thread that touched it last, by its id in the initial PID namespace.
    pub thread: u32,
}

#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Page>,
    /// Times the kept share was halved: only pages of that share are taken in.
    halvings: u32,
    thinned: u64,
}

impl Pages {
    pub(super) fn insert(&mut self, number: u64, mut page: Page) {
        if !is_kept(number, self.halvings) {
            // Whoever touched this page no longer matters, though: it belongs to somebody else now.
            self.thinned += 1;
            return;
        }
        page.weight = page.weight.saturating_mul(1 << self.halvings);
        self.pages.insert(number, page);
        while self.pages.len() > MAX_PAGES && self.halvings < 32 {
            // Half of the pages, chosen by number alone, each standing for two from now on.
            self.halvings += 1;
            let before = self.pages.len();
            let halvings = self.halvings;
            self.pages.retain(|&number, _| is_kept(number, halvings));
            self.thinned += (before - self.pages.len()) as u64;
            for page in self.pages.values_mut() {
                page.weight = page.weight.saturating_mul(2);
            }
        }
    }

    /// The kernel moved what lay there, as `mremap` does: the pages are the same under other numbers.
    pub(super) fn relocate(&mut self, from: u64, to: u64, pages: u64) {
        let mut moved = self.pages.split_off(&from);
        let mut after = moved.split_off(&from.saturating_add(pages));
        self.pages.append(&mut after);
        for (number, page) in moved {
            // Kept whatever their new number: it was their old one that they were chosen by.
            self.pages.insert(to.saturating_add(number - from), page);
        }
    }

    /// Takes from the weight of pages that stand for more than lies between them: memory that is given back and
    /// touched again all the time (an allocator that purges) is sampled anew each time, and only once there. To be
    /// called when what is gone is forgotten.
    pub(super) fn cap(&mut self) {
        let mut run: Vec<u64> = Vec::new();
        let mut caps: Vec<(u64, u64, f64)> = Vec::new();
        let mut weight = 0u64;
        let mut close = |run: &mut Vec<u64>, weight: &mut u64| {
            if let ([first, .., last], true) = (&run[..], run.len() >= CAPPED_SAMPLES) {
                let between = (last - first + 1) as f64;
                // What is more than chance.
                if *weight as f64 > 1.25 * between {
                    caps.push((*first, *last, between / *weight as f64));
                }
            }
            run.clear();
            *weight = 0;
        };
        for (&number, page) in &self.pages {
            let far = run.last().is_some_and(|last| number - last > page.weight.saturating_mul(8));
            if far || run.len() >= 8 * CAPPED_SAMPLES {
                close(&mut run, &mut weight);
            }
            run.push(number);
            weight = weight.saturating_add(page.weight);
        }
        close(&mut run, &mut weight);
        for (first, last, share) in caps {
            for (_, page) in self.pages.range_mut(first..=last) {
                page.weight = ((page.weight as f64 * share) as u64).max(1);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Page> {
        self.pages.values()
    }

    /// Asks which pages are still there, in ascending order of their numbers, and forgets the others.
    pub(super) fn keep_resident(
        &mut self,
        ask: impl FnOnce(&[u64]) -> io::Result<Vec<bool>>,
    ) -> io::Result<()> {
        let numbers: Vec<u64> = self.pages.keys().copied().collect();
        let mut answers = ask(&numbers)?.into_iter();
        self.pages.retain(|_, _| answers.next().unwrap_or(true));
        Ok(())
    }

    /// Forgets what lies in no mapping, and takes from what lies in one as much as it stands for beyond what the mapping
    /// holds. The mappings in ascending order.
    pub(super) fn fit(&mut self, mappings: &[Held]) {
        let mut shares: Vec<f64> = Vec::with_capacity(mappings.len());
        for mapping in mappings {
            let inside = self.pages.range(mapping.start..mapping.end.max(mapping.start));
            let weight = inside.fold(0u64, |sum, (_, page)| sum.saturating_add(page.weight));
            shares.push(if weight > mapping.pages { mapping.pages as f64 / weight as f64 } else { 1.0 });
        }
        let mut place = 0;
        let mut carry = 0.0;
        self.pages.retain(|&number, page| {
            while mappings.get(place).is_some_and(|mapping| mapping.end <= number) {
                place += 1;
                carry = 0.0;
            }
            let Some(share) = shares.get(place).filter(|_| mappings[place].start <= number) else {
                return false;
            };
            if *share < 1.0 {
                // What is less than a page is carried on to the next: the sum stays right.
                carry += page.weight as f64 * share;
                page.weight = carry as u64;
                carry -= page.weight as f64;
            }
            page.weight > 0
        });
    }

    /// Pages that were given up since the last call to stay within bounds.
    pub(super) fn take_thinned(&mut self) -> u64 {
        std::mem::take(&mut self.thinned)
    }
}

/// One page in 2^halvings, spread evenly whatever pattern the numbers have.
fn is_kept(number: u64, halvings: u32) -> bool {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    halvings == 0 || mixed >> (64 - halvings) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_pages_are_thinned_without_bias() {
        let mut pages = Pages::default();
        let total = 1_000_000u64;
        for number in 0..total {
            pages.insert(
                number * 16,
                Page { stack: (number % 2) as u32, weight: 61, via: Via::Mmap, thread: 1 },
            );
        }
        assert!(pages.iter().count() <= MAX_PAGES);
        assert!(pages.take_thinned() > 0);
        for stack in 0..2 {
            let weight: u64 = pages.iter().filter(|page| page.stack == stack).map(|page| page.weight).sum();
            let truth = total * 61 / 2;
            assert!(weight.abs_diff(truth) < truth / 50, "{weight} of {truth}");
        }
    }

    #[test]
    fn memory_that_comes_and_goes_counts_once() {
        let mut pages = Pages::default();
        // A thousand rounds over 6100 pages: each was sampled at some time, and all are there.
        for number in 0..6100 {
            pages.insert(number, Page { stack: 1, weight: 61, via: Via::Mmap, thread: 1 });
        }
        // Elsewhere as many samples stand for what lies between them.
        for number in 0..100 {
            let page = Page { stack: 2, weight: 61, via: Via::Mmap, thread: 1 };
            pages.insert(1_000_000 + number * 61, page);
        }
        pages.cap();
        let weight = |stack| pages.iter().filter(|p| p.stack == stack).map(|p| p.weight).sum::<u64>();
        assert!(weight(1).abs_diff(6100) < 610, "{}", weight(1));
        assert_eq!(weight(2), 6100);
    }

    #[test]
    fn pages_that_were_moved_are_the_same_pages() {
        let mut pages = Pages::default();
        for number in 0..30 {
            pages.insert(number, Page { stack: number as u32, weight: 1, via: Via::Mmap, thread: 1 });
        }
        pages.relocate(10, 1000, 10);
        let numbers: Vec<u64> = pages.pages.keys().copied().collect();
        assert_eq!(numbers, (0..10).chain(20..30).chain(1000..1010).collect::<Vec<u64>>());
        assert_eq!(pages.pages[&1003].stack, 13);
        // A target may say anything.
        for (from, to, length) in [(u64::MAX, 0, u64::MAX), (0, u64::MAX, u64::MAX), (5, 5, 0)] {
            pages.relocate(from, to, length);
        }
        assert!(pages.iter().count() <= 30);
    }

    #[test]
    fn by_mapping_no_more_is_left_than_it_holds() {
        let mut pages = Pages::default();
        for number in (0..100).chain(1000..1100).chain(5000..5100) {
            let stack = if number % 2 == 0 { 1 } else { 2 };
            pages.insert(number, Page { stack, weight: 61, via: Via::Mmap, thread: 1 });
        }
        let held = |start, end, pages| Held { start, end, pages };
        pages.fit(&[held(0, 100, 100), held(900, 2000, 1_000_000), held(3000, 4000, 7)]);
        let weight =
            |range: std::ops::Range<u64>| pages.pages.range(range).map(|(_, p)| p.weight).sum::<u64>();
        assert_eq!((weight(1000..1100), weight(5000..5100)), (6100, 0), "all of it, and none");
        assert!(weight(0..100).abs_diff(100) <= 1, "{}", weight(0..100));
        let of_one: u64 =
            pages.pages.range(0..100).filter(|(_, p)| p.stack == 1).map(|(_, p)| p.weight).sum();
        assert!(of_one.abs_diff(50) <= 5, "in equal shares: {of_one}");
        pages.fit(&[held(10, 5, 3), held(7, 7, 0)]);
        assert_eq!(pages.iter().count(), 0);
    }

    #[test]
    fn pages_that_are_gone_are_forgotten() {
        let mut pages = Pages::default();
        for number in 0..10 {
            pages.insert(number, Page { stack: 1, weight: 1, via: Via::Brk, thread: 1 });
        }
        pages.keep_resident(|numbers| Ok(numbers.iter().map(|number| number % 2 == 0).collect())).unwrap();
        assert_eq!(pages.iter().count(), 5);
        assert!(pages.keep_resident(|_| Err(io::Error::from_raw_os_error(libc::ESRCH))).is_err());
        assert_eq!(pages.iter().count(), 5, "an exit does not wipe the record");
    }
}
