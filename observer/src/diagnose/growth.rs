//! Who first touched the memory that grows: the sites in order, and the function to name in a sentence.
//!
//! Takes growth sites, gives them ranked, and a share. Who touched a page first is not always who keeps it: an allocator
//! hands freed memory out again, and it stays with its first user. So it is said as what it is.

use std::collections::BTreeMap;

use super::site;
use crate::sample::{GrowthSite, Via};

/// What keeps growing before what grew once; of recordings that do not tell, the largest first.
pub(crate) fn ranked(sites: &[GrowthSite]) -> Vec<GrowthSite> {
    let mut ranked = sites.to_vec();
    ranked.sort_by(|one, other| {
        rate(other).total_cmp(&rate(one)).then(other.bytes.cmp(&one.bytes)).then(one.via.cmp(&other.via))
    });
    ranked
}

/// The function that first touched most of what grows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Leader {
    pub function: String,
    pub via: Via,
    /// Of the growth.
    pub share: f64,
}

/// Which function first touched most of what grows, where memory grows by `slope` bytes per second.
pub(crate) fn leader(sites: &[GrowthSite], slope: f64) -> Option<Leader> {
    let rates_known = sites.iter().any(|site| rate(site) > 0.0);
    let weight = |site: &GrowthSite| if rates_known { rate(site) } else { site.bytes as f64 };
    let mut sums: BTreeMap<(String, &Via), f64> = BTreeMap::new();
    for site in sites {
        *sums.entry((function(site), &site.via)).or_default() += weight(site);
    }
    let all: f64 = sums.values().sum();
    // What no sampled page accounts for is nobody's.
    let whole = if rates_known { all.max(slope) } else { all };
    let ((function, via), most) = sums.into_iter().max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let share = most / whole;
    (share.is_finite() && share > 0.0 && !function.is_empty()).then(|| Leader {
        function,
        via: via.clone(),
        share: share.min(1.0),
    })
}

/// The function that called the allocator, as far as the stack shows one.
fn function(site: &GrowthSite) -> String {
    site::owner(&site.frames).map(site::name).unwrap_or_default()
}

fn rate(site: &GrowthSite) -> f64 {
    if site.bytes_per_second.is_finite() { site.bytes_per_second.max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Frame;

    fn site(functions: &[&str], bytes: u64, bytes_per_second: f64) -> GrowthSite {
        let frame = |name: &&str| Frame { function: (*name).to_owned(), ..Frame::default() };
        let frames: Vec<Frame> = functions.iter().map(frame).collect();
        GrowthSite {
            frames: frames.into(),
            bytes,
            bytes_per_second,
            via: "brk".into(),
            ..GrowthSite::default()
        }
    }

    #[test]
    fn the_function_that_grows_leads_not_the_one_that_grew() {
        let sites = [
            site(&["memset", "load_tables", "main"], 300 << 20, 0.0),
            site(&["_int_malloc", "malloc", "leak_small", "main"], 3 << 20, 300.0),
            site(&["sysmalloc", "_int_malloc", "malloc", "leak_small", "main"], 1 << 20, 600.0),
            site(&["malloc", "other", "main"], 1 << 20, 100.0),
            site(&["malloc", "shrinks", "main"], 1 << 20, -500.0),
        ];
        let found = leader(&sites, 900.0).unwrap();
        assert_eq!((found.function.as_str(), found.via.as_str()), ("leak_small", "brk"));
        assert!((found.share - 0.9).abs() < 1e-9, "{found:?}");
        assert!((leader(&sites, 1800.0).unwrap().share - 0.5).abs() < 1e-9, "half is nobody's");
        assert_eq!(ranked(&sites)[0].frames[2].function, "malloc");
        // A recording from before rates were told.
        let old: Vec<GrowthSite> =
            sites.iter().map(|site| GrowthSite { bytes_per_second: 0.0, ..site.clone() }).collect();
        assert_eq!(leader(&old, 900.0).unwrap().function, "load_tables");
        assert_eq!(leader(&[], 1.0), None);
        assert_eq!(leader(&[site(&[], 1, f64::NAN)], f64::NAN), None);
    }
}
