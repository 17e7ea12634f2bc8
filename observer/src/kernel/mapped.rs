//! Bytes of address space that changed hands, counted at every mapping call.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray};
use observer_common::mapped::{CALLS, Call, MappedCounters};

use crate::sample::Mapped;

pub(super) struct MappedMap(pub(super) PerCpuArray<MapData, MappedCounters>);

impl MappedMap {
    /// Since the target was added. Bytes as the successful calls asked for them, in whole pages.
    pub(super) fn read(&self, slot: u32) -> Result<Mapped, MapError> {
        let (mut mapped, mut unmapped) = ([0u64; CALLS], [0u64; CALLS]);
        for counters in self.0.get(&slot, 0)?.iter() {
            for call in 0..CALLS {
                mapped[call] = mapped[call].wrapping_add(counters.mapped[call]);
                unmapped[call] = unmapped[call].wrapping_add(counters.unmapped[call]);
            }
        }
        let by_name = |bytes: [u64; CALLS]| -> BTreeMap<String, u64> {
            let calls = Call::ALL.into_iter().zip(bytes);
            calls
                .filter(|&(_, bytes)| bytes != 0)
                .map(|(call, bytes)| (call.name().to_owned(), bytes))
                .collect()
        };
        Ok(Mapped {
            source: "exact".into(),
            mapped_bytes: by_name(mapped),
            unmapped_bytes: by_name(unmapped),
        })
    }
}
