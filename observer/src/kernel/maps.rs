//! Maps of the loaded object: taken out of it by name, set to nothing by slot.

use std::io;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use aya::{Ebpf, Pod};

use super::error::KernelError;

/// Sets a target's slot to `zero` on every processor.
pub(super) fn clear<T: Pod + Copy>(
    map: &mut PerCpuArray<MapData, T>,
    slot: u32,
    zero: T,
) -> Result<(), KernelError> {
    let error = |error| KernelError::Map { map: "counters", error };
    let cpus = aya::util::nr_cpus()
        .map_err(|(path, cause)| error(MapError::IoError(io::Error::other(format!("{path}: {cause}")))))?;
    let values = PerCpuValues::try_from(vec![zero; cpus]).map_err(|cause| error(MapError::IoError(cause)))?;
    map.set(slot, values, 0).map_err(error)
}

/// Takes a map out of the object as the type it has there.
pub(super) fn take_map<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    as_type: impl FnOnce(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, KernelError> {
    let error = |error| KernelError::Map { map: name, error };
    let map = ebpf.take_map(name).ok_or_else(|| error(MapError::InvalidName { name: name.to_owned() }))?;
    as_type(map).map_err(error)
}
