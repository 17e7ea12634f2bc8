//! The list of sources: loaded in order, then cleared, drained and removed one like the other.

use super::allocations::Allocations;
use super::error::KernelError;
use super::features::Features;
use super::growth::Growth;
use super::lifecycle::Lifecycle;
use super::mapped::MappedCalls;
use super::options::KernelOptions;
use super::source::{Object, Source};
use super::waits::FutexWaits;

/// The sources that could be attached; absent where not asked for or refused.
pub(super) struct Sources {
    pub(super) allocations: Option<Allocations>,
    pub(super) waits: Option<FutexWaits>,
    pub(super) growth: Option<Growth>,
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) mapped: Option<MappedCalls>,
}

impl Sources {
    pub(super) fn load(
        from: &mut Object<'_>,
        options: &KernelOptions,
        features: &mut Features,
    ) -> Result<Self, KernelError> {
        fn load<S: Source>(
            from: &mut Object<'_>,
            options: &KernelOptions,
            features: &mut Features,
        ) -> Result<Option<S>, KernelError> {
            let (source, feature) = S::load(from, options)?;
            features.list.push(feature);
            Ok(source)
        }
        // Allocations first: they are loaded past aya, while all maps are there to be found.
        let allocations = load(from, options, features)?;
        Ok(Self {
            allocations,
            waits: load(from, options, features)?,
            growth: load(from, options, features)?,
            lifecycle: load(from, options, features)?,
            mapped: load(from, options, features)?,
        })
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut dyn Source> {
        fn as_source(source: &mut Option<impl Source>) -> Option<&mut dyn Source> {
            source.as_mut().map(|source| source as &mut dyn Source)
        }
        let Self { allocations, waits, growth, lifecycle, mapped } = self;
        [as_source(allocations), as_source(waits), as_source(growth), as_source(lifecycle), as_source(mapped)]
            .into_iter()
            .flatten()
    }
}
