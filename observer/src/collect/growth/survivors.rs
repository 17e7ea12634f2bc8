//! Which of the sampled pages are still there.
//!
//! By page, off `/proc/PID/pagemap`, which is for the process's own user and who passes over file permissions. Else by
//! mapping, off `/proc/PID/smaps`, which is for everybody who may read the process: what lies in no mapping is gone, and
//! what the samples in one stand for beyond what it holds is gone too, in equal shares. The kernel then walks all page
//! tables of the process, some 3 ms a resident GiB, every 10 s or seldomer.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::time::Instant;

use super::pages::Pages;
use crate::collect::pagemap::page_bytes;

/// Forgets the pages that are gone; told the time in seconds, by a clock that need not be ours.
pub type Survivors = dyn FnMut(&mut Pages, f64) -> io::Result<()> + Send;

/// Between two looks at the mappings, at least; and so many times as long as a look takes.
const LEAST: f64 = 10.0;
const TIMES: f64 = 200.0;
/// A line of the kernel's has a path at the end, at most 4096 bytes.
const LINE: usize = 8192;
/// The kernel's own bound on mappings is 65,530 by default.
const MAPPINGS: usize = 1 << 18;

/// `resident` tells of page numbers, in ascending order, which are there.
pub fn by_page(mut resident: impl FnMut(&[u64]) -> io::Result<Vec<bool>> + Send + 'static) -> Box<Survivors> {
    Box::new(move |pages, _| pages.keep_resident(&mut resident))
}

pub fn by_mapping(pid: u32) -> Box<Survivors> {
    let mut next = f64::NEG_INFINITY;
    Box::new(move |pages, at_seconds| {
        if at_seconds < next {
            return Ok(());
        }
        let began = Instant::now();
        let file = File::open(format!("/proc/{pid}/smaps"))?;
        pages.fit(&parse(BufReader::with_capacity(1 << 16, file))?);
        next = at_seconds + LEAST.max(TIMES * began.elapsed().as_secs_f64());
        Ok(())
    })
}

/// A mapping, and how much of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Page numbers, the end not included.
    pub start: u64,
    pub end: u64,
    /// Pages in memory or in swap.
    pub pages: u64,
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
        let file = File::open("/proc/self/smaps").unwrap();
        let held = parse(BufReader::new(file)).unwrap();
        let here = (&raw const held) as u64 / page_bytes();
        let stack = held.iter().find(|held| (held.start..held.end).contains(&here)).unwrap();
        assert!(stack.pages > 0 && stack.pages <= stack.end - stack.start, "{stack:?}");
    }
}
