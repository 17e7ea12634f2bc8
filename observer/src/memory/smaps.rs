//! How much of each mapping of a process is there: `/proc/PID/smaps`, which is for everybody who may read the process,
//! where `/proc/PID/pagemap` is for its own user and who passes over file permissions.
//!
//! The kernel walks all page tables of the process for it, some 13 ms a resident GiB in small pages (2026-11-25, Linux
//! 6.18): so it is read seldom.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::time::Instant;

use super::pagemap::page_bytes;

/// Seconds between two looks, however cheap and however dear.
const LEAST: f64 = 10.0;
const LONGEST: f64 = 600.0;
/// The share of one core that looking may take, where nobody says otherwise.
const CPU_SHARE: f64 = 0.002;
/// A line of the kernel's has a path at the end, at most 4096 bytes.
const LINE: usize = 8192;
/// The kernel's own bound on mappings is 65,530 by default.
const MAPPINGS: usize = 1 << 18;

/// Looks at one process, now and then.
#[derive(Debug)]
pub(crate) struct Smaps {
    pid: u32,
    next: f64,
    share: f64,
}

impl Smaps {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, next: f64::NEG_INFINITY, share: CPU_SHARE }
    }

    /// The share of one core that looking may take.
    pub(crate) fn set_share(&mut self, share: f64) {
        self.share = share;
    }

    /// Its mappings in ascending order, unless the last look was just now; told the time in seconds, by any clock.
    pub(crate) fn look(&mut self, at_seconds: f64) -> io::Result<Option<Vec<Held>>> {
        if at_seconds < self.next {
            return Ok(None);
        }
        let began = Instant::now();
        let file = File::open(format!("/proc/{}/smaps", self.pid))?;
        let held = parse(BufReader::with_capacity(1 << 16, file))?;
        let pause = began.elapsed().as_secs_f64() / self.share.clamp(1e-6, 1.0);
        self.next = at_seconds + pause.clamp(LEAST, LONGEST);
        Ok(Some(held))
    }
}

/// A mapping, and how much of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Page numbers, the end not included.
    pub start: u64,
    pub end: u64,
    /// Pages in memory or in swap.
    pub pages: u64,
}

/// The mapping that a page lies in.
pub(crate) fn at(mappings: &[Held], page: u64) -> Option<&Held> {
    let after = mappings.partition_point(|held| held.start <= page);
    mappings[..after].last().filter(|held| page < held.end)
}

/// Of `smaps`: the range at the head of each mapping, and its `Rss` and `Swap`.
fn parse(mut text: impl BufRead) -> io::Result<Vec<Held>> {
    let mut all: Vec<Held> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line that is longer goes on as another one, which is none that is looked for.
        if io::Read::take(&mut text, LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(all);
        }
        let Ok(line) = str::from_utf8(&line) else { continue };
        let mut words = line.split_ascii_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { continue };
        if let Some((start, end)) = first.split_once('-') {
            let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
                continue;
            };
            if all.len() >= MAPPINGS {
                return Ok(all);
            }
            let [start, end] = [start, end].map(|address| address / page_bytes());
            all.push(Held { start, end, pages: 0 });
        } else if let (Some(last), "Rss:" | "Swap:") = (all.last_mut(), first) {
            let kib = second.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
            last.pages = last.pages.saturating_add(kib.saturating_mul(1024) / page_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_and_what_it_does_not() {
        let text = "00400000-00402000 r-xp 00000000 08:01 1  /bin/a Rss: 9 kB\n\
                    Size:                  8 kB\nRss:                   8 kB\nSwap:                  0 kB\n\
                    7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \n\
                    Rss:                  64 kB\nSwap:                 16 kB\nSwapPss:  7 kB\nVmFlags: rd wr\n";
        let page = page_bytes();
        let held = |start: u64, end: u64, kib: u64| Held {
            start: start / page,
            end: end / page,
            pages: kib * 1024 / page,
        };
        assert_eq!(
            parse(text.as_bytes()).unwrap(),
            [held(0x40_0000, 0x40_2000, 8), held(0x7f00_0000_0000, 0x7f00_0010_0000, 80)]
        );
        let long = format!("1000-2000 r {}\nRss: x kB\n-\nRss:\n\u{0}\n", "y".repeat(100_000));
        assert_eq!(parse(long.as_bytes()).unwrap(), [held(0x1000, 0x2000, 0)]);
        assert_eq!(parse(&b"Rss: 5 kB\n\xff-\xff\nzz-1 r\n"[..]).unwrap(), []);
    }

    #[test]
    fn this_process_as_it_is() {
        let mut smaps = Smaps::new(std::process::id());
        let held = smaps.look(0.0).unwrap().unwrap();
        assert!(smaps.look(9.0).unwrap().is_none(), "so soon");
        assert_eq!(at(&held, u64::MAX), None);
        let here = (&raw const held) as u64 / page_bytes();
        let stack = at(&held, here).unwrap();
        assert!(stack.pages > 0 && stack.pages <= stack.end - stack.start, "{stack:?}");
    }
}
