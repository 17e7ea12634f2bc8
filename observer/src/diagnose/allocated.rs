//! What tracked allocations say: which site holds the live bytes, in a sentence where it carries one.

use super::diagnosis::Diagnosis;
use super::site;
use crate::format::{bytes, bytes_per_second, counted, percent};
use crate::language;
use crate::sample::{AllocationSite, Allocations};

/// Sites of a diagnosis.
const SITES: usize = 10;
/// Samples below which a share is a guess.
const LEAST_SAMPLES: u64 = 20;
/// The share of the live bytes from which a site is named in the verdict.
const LEAST_SHARE: f64 = 0.5;

/// The totals without sites, and the largest sites.
pub(super) fn parts(allocations: Option<&Allocations>) -> (Option<Allocations>, Vec<AllocationSite>) {
    let Some(allocations) = allocations else { return (None, Vec::new()) };
    let sites = allocations.sites.iter().take(SITES).cloned().collect();
    (Some(Allocations { sites: Vec::new(), ..allocations.clone() }), sites)
}

/// Who allocated most of what is alive, if it is most of it and grows.
pub(super) fn sentence(diagnosis: &Diagnosis) -> Option<String> {
    let all = diagnosis.allocations.as_ref()?;
    // Stacks that differ only in where they came from are one function's.
    let first = diagnosis.allocation_sites.first()?;
    let name = place(first)?;
    let mine = diagnosis.allocation_sites.iter().filter(|other| place(other).as_ref() == Some(&name));
    let (mut live, mut samples, mut growth) = (0u64, 0u64, 0.0);
    for other in mine {
        live = live.saturating_add(other.live_bytes);
        samples = samples.saturating_add(other.live_samples);
        growth += other.growth_bytes_per_second;
    }
    let share = live as f64 / all.live_bytes.max(1) as f64;
    if samples < LEAST_SAMPLES || share < LEAST_SHARE || growth <= 0.0 {
        return None;
    }
    Some(format!(
        "No group of blocked {} grows. {} of the live bytes allocated since attach were allocated by \
         {name} ({} in {}, {} more).",
        language::members("or"),
        percent(share.min(1.0)),
        bytes(live as f64),
        counted(samples, "sample"),
        bytes_per_second(growth)
    ))
}

/// Where the target's own code asked for it.
fn place(allocation: &AllocationSite) -> Option<String> {
    let frame = site::owner(&allocation.frames)?;
    let line = site::file_line(frame.file.as_deref(), None);
    let name = site::name(frame);
    Some(if line.is_empty() { name } else { format!("{name} {line}") })
}

#[cfg(test)]
mod tests {
    use super::super::{History, diagnose};
    use super::*;
    use crate::sample::{Frame, Sample, TargetInfo};

    fn site(function: &str, live_bytes: u64, live_samples: u64) -> AllocationSite {
        let frame = |function: &str| Frame { function: function.to_owned(), ..Frame::default() };
        let frames = [frame(function), frame("main")].into();
        AllocationSite {
            frames,
            live_bytes,
            live_samples,
            growth_bytes_per_second: 1e6,
            ..Default::default()
        }
    }

    fn sentence_of(sites: Vec<AllocationSite>) -> Option<String> {
        let live_bytes = sites.iter().map(|site| site.live_bytes).sum();
        let mut history = History::new();
        let allocations = Some(Allocations { live_bytes, sites, ..Default::default() });
        history.push(Sample { allocations, ..Sample::default() });
        let diagnosis = diagnose(&history, &TargetInfo::default());
        assert!(diagnosis.allocations.as_ref().is_some_and(|all| all.sites.is_empty()));
        sentence(&diagnosis)
    }

    #[test]
    fn names_who_holds_most_and_nobody_on_a_guess() {
        let told = sentence_of(vec![site("keep", 92 << 20, 180), site("other", 8 << 20, 16)]).unwrap();
        assert!(
            told.contains("92 % of the live bytes allocated since attach were allocated by keep"),
            "{told}"
        );
        assert_eq!(sentence_of(vec![site("keep", 92 << 20, 5), site("other", 8 << 20, 16)]), None);
        assert_eq!(
            sentence_of(vec![
                site("keep", 40 << 20, 80),
                site("other", 39 << 20, 80),
                site("third", 30 << 20, 60)
            ]),
            None
        );
        assert_eq!(sentence_of(Vec::new()), None);
    }
}
