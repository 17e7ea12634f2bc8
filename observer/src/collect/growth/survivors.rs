//! Which of the sampled pages are still there: by page where the page map may be read, else by mapping. Then what lies in
//! no mapping is gone, and what the samples in one stand for beyond what it holds is gone too, in equal shares.

use std::io;

use super::pages::Pages;
use crate::collect::smaps::Smaps;

/// Forgets the pages that are gone; told the time in seconds, by a clock that need not be ours.
pub type Survivors = dyn FnMut(&mut Pages, f64) -> io::Result<()> + Send;

/// `resident` tells of page numbers, in ascending order, which are there.
pub fn by_page(mut resident: impl FnMut(&[u64]) -> io::Result<Vec<bool>> + Send + 'static) -> Box<Survivors> {
    Box::new(move |pages, _| pages.keep_resident(&mut resident))
}

pub fn by_mapping(pid: u32) -> Box<Survivors> {
    let mut smaps = Smaps::new(pid);
    Box::new(move |pages, at_seconds| {
        if let Some(mappings) = smaps.look(at_seconds)? {
            pages.fit(&mappings);
        }
        Ok(())
    })
}
