//! Which of the sampled pages are still there: by page where the page map may be read, else by mapping. Then what lies in
//! no mapping is gone, and what the samples in one stand for beyond what it holds is gone too, in equal shares.

use std::io;

use super::pages::Pages;
use crate::memory::smaps::Smaps;

/// Of page numbers, in ascending order, which are there.
type Resident = dyn FnMut(&[u64]) -> io::Result<Vec<bool>> + Send;

pub(super) enum Survivors {
    ByPage(Box<Resident>),
    ByMapping(Smaps),
}

impl Survivors {
    pub(super) fn by_page(resident: impl FnMut(&[u64]) -> io::Result<Vec<bool>> + Send + 'static) -> Self {
        Self::ByPage(Box::new(resident))
    }

    /// Forgets the pages that are gone; told the time in seconds, by any clock.
    pub(super) fn keep(&mut self, pages: &mut Pages, at_seconds: f64) -> io::Result<()> {
        match self {
            Self::ByPage(resident) => pages.keep_resident(resident),
            Self::ByMapping(smaps) => {
                if let Some(mappings) = smaps.look(at_seconds)? {
                    pages.fit(&mappings);
                }
                Ok(())
            }
        }
    }
}
