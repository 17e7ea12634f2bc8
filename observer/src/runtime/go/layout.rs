//! Where the Go runtime keeps what: offsets of its structs, a set for each minor version.
//!
//! Reads a table made from the DWARF of programs built with each toolchain (`cargo xtask go-layouts`), or the
//! DWARF of the target itself. All of it is for 64-bit targets; amd64 and arm64 have equal offsets (the
//! generator compares them). An offset from here is a hint about hostile memory: whoever reads with it bounds
//! the read.

mod dwarf;
mod error;
mod units;
mod version;

use std::fs::File;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use error::LayoutError;
pub use version::GoVersion;

/// Declares structs of offsets together with the DWARF names that they come from.
///
/// `field: kind = "path" | "older path"`: the first path that exists counts; `Option<u32>` may be missing.
macro_rules! structs {
    ($( $(#[$doc:meta])* $name:ident = $($type_name:literal)|+ {
        $( $(#[$field_doc:meta])* $field:ident: $kind:ty = $($path:literal)|+; )*
    } )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name {
                /// Bytes of the whole struct.
                pub size: u32,
                $( $(#[$field_doc])* pub $field: $kind, )*
            }

            impl $name {
                fn resolve(types: &dwarf::Types) -> Result<Self, LayoutError> {
                    let name = types.first_of(&[$($type_name),+])?;
                    Ok(Self {
                        size: types.size(name)?,
                        $( $field: dwarf::Resolve::resolve(types, name, &[$($path),+])?, )*
                    })
                }
            }
        )*

        /// Every struct that is looked for in DWARF by name.
        const STRUCTS: &[&str] = &[$($($type_name),+),+];
    };
}

structs! {
    /// `runtime.g`, a goroutine. `sched_*` is its saved context; `sched_g` points to the `g` itself.
    GLayout = "runtime.g" {
        stack_lo: u32 = "stack.lo";
        stack_hi: u32 = "stack.hi";
        panic: u32 = "_panic";
        defer: u32 = "_defer";
        sched_sp: u32 = "sched.sp";
        sched_pc: u32 = "sched.pc";
        sched_g: u32 = "sched.g";
        sched_ctxt: u32 = "sched.ctxt";
        sched_lr: u32 = "sched.lr";
        syscallsp: u32 = "syscallsp";
        syscallpc: u32 = "syscallpc";
        /// `u32`.
        atomicstatus: u32 = "atomicstatus";
        goid: u32 = "goid";
        /// `i64` nanoseconds of the monotonic clock; 0 until the first collection after it blocked.
        waitsince: u32 = "waitsince";
        /// `u8`, an index into [`Layout::wait_reasons`].
        waitreason: u32 = "waitreason";
        /// `u8`, one more each time the goroutine stops running.
        tracking_seq: u32 = "trackingSeq";
        gopc: u32 = "gopc";
        startpc: u32 = "startpc";
        /// The first `sudog` that it waits on, the others by `waitlink`.
        waiting: u32 = "waiting";
        labels: u32 = "labels";
    }

    /// `runtime.sudog`, a goroutine in the queue of a channel or a semaphore.
    SudogLayout = "runtime.sudog" {
        g: u32 = "g";
        next: u32 = "next";
        /// The element to send or receive, or the address of the semaphore. Since 1.26 a struct, of which
        /// this is the word that the collector does not clear.
        elem: u32 = "elem.vu" | "elem";
        waitlink: u32 = "waitlink";
        /// The channel, or zero.
        c: u32 = "c.maybeTraceablePtr.vu" | "c";
    }

    /// `runtime.hchan`, a channel.
    HchanLayout = "runtime.hchan" {
        qcount: u32 = "qcount";
        dataqsiz: u32 = "dataqsiz";
        /// `u16`.
        elemsize: u32 = "elemsize";
        /// `u32`.
        closed: u32 = "closed";
        elemtype: u32 = "elemtype";
    }

    /// The head of a type descriptor.
    TypeLayout = "internal/abi.Type" | "runtime._type" {
        /// `u8`; 2: the name begins with a `*` that does not belong to it.
        tflag: u32 = "TFlag" | "tflag";
        /// `u8`, its low five bits.
        kind: u32 = "Kind_" | "kind";
        /// `i32`, the name's offset from [`ModuledataLayout::types`].
        str_: u32 = "Str" | "str";
    }

    /// `runtime.moduledata`.
    ModuledataLayout = "runtime.moduledata" {
        text: u32 = "text";
        noptrdata: u32 = "noptrdata";
        data: u32 = "data";
        bss: u32 = "bss";
        noptrbss: u32 = "noptrbss";
        types: u32 = "types";
        etypes: u32 = "etypes";
        gofunc: u32 = "gofunc";
        next: u32 = "next";
    }

    /// `runtime.inlinedCall`, an entry of a function's inlining tree.
    InlinedCallLayout = "runtime.inlinedCall" {
        parent_pc: u32 = "parentPc";
    }

    /// `runtime.mspan`, a run of heap or stack pages.
    MspanLayout = "runtime.mspan" {
        start_addr: u32 = "startAddr";
        npages: u32 = "npages";
        /// `u64` up to 1.21, `u16` since: as wide as [`Self::nelems`].
        freeindex: u32 = "freeindex";
        nelems: u32 = "nelems";
        alloc_bits: u32 = "allocBits";
        /// `u32`.
        sweepgen: u32 = "sweepgen";
        /// `u16`.
        alloc_count: u32 = "allocCount";
        /// `u8`; its lowest bit: objects without pointers.
        spanclass: u32 = "spanclass";
        /// `u8`; 0 free, 1 heap, 2 by hand (stacks and the runtime's own).
        state: u32 = "state";
        elemsize: u32 = "elemsize";
        limit: u32 = "limit";
    }
}

/// The runtime's structs in one minor version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub minor: u32,
    /// Where the offsets come from: `dwarf of go1.27.3, amd64 = arm64`.
    pub source: String,
    pub g: GLayout,
    pub sudog: SudogLayout,
    pub hchan: HchanLayout,
    pub type_: TypeLayout,
    pub moduledata: ModuledataLayout,
    pub inlined_call: InlinedCallLayout,
    pub mspan: MspanLayout,
    /// `runtime.waitReasonStrings`. Empty where the DWARF of a target does not say.
    pub wait_reasons: Vec<String>,
}

/// Bytes of a heap page, in every version.
pub const PAGE_SIZE: u64 = 8192;

impl Layout {
    /// The layouts of every known version, oldest first.
    pub fn table() -> &'static [Self] {
        static TABLE: OnceLock<Vec<Layout>> = OnceLock::new();
        // The text is ours and a test parses it.
        TABLE.get_or_init(|| serde_json::from_str(include_str!("layout/table.json")).unwrap_or_default())
    }

    /// The layout of a version, where the table has its minor version.
    ///
    /// For a version that is not [`GoVersion::released`] or has experiments it is likely, not certain: check
    /// it against what must hold in memory before believing it.
    pub fn for_version(version: &GoVersion) -> Option<&'static Self> {
        Self::table().iter().find(|layout| layout.minor == version.minor)
    }

    /// The newest layout of the table: a guess for a version beyond it, to be checked against memory.
    pub fn newest() -> Option<&'static Self> {
        Self::table().last()
    }

    /// The layout that a program's own DWARF describes, without the names of its wait reasons.
    ///
    /// Takes at most some tens of MiB, whatever the file is.
    pub fn from_dwarf(file: &File) -> Result<Self, LayoutError> {
        let (types, version) = dwarf::read(file, STRUCTS)?;
        Self::resolve(&types, version.minor, format!("its own dwarf ({version})"))
    }

    /// The names of the wait reasons that a program's file has; `None` without a symbol table.
    ///
    /// For whoever makes the table: the file is in memory whole, and trusted.
    pub fn wait_reasons_of(elf: &[u8]) -> Option<Vec<String>> {
        dwarf::wait_reasons_of(elf)
    }

    /// Whether every offset is the same, whatever the versions are called.
    pub fn same_offsets(&self, other: &Self) -> bool {
        let named = Self {
            minor: other.minor,
            source: other.source.clone(),
            wait_reasons: other.wait_reasons.clone(),
            ..self.clone()
        };
        named == *other
    }

    /// Whether `freeindex` and `nelems` of a span are `u16`.
    pub fn narrow_span_counts(&self) -> bool {
        self.minor >= 22
    }

    /// The name of a wait reason; `None` for a number that this version does not have.
    pub fn wait_reason(&self, number: u8) -> Option<&str> {
        self.wait_reasons.get(usize::from(number)).map(String::as_str)
    }

    fn resolve(types: &dwarf::Types, minor: u32, source: String) -> Result<Self, LayoutError> {
        Ok(Self {
            minor,
            source,
            g: GLayout::resolve(types)?,
            sudog: SudogLayout::resolve(types)?,
            hchan: HchanLayout::resolve(types)?,
            type_: TypeLayout::resolve(types)?,
            moduledata: ModuledataLayout::resolve(types)?,
            inlined_call: InlinedCallLayout::resolve(types)?,
            mspan: MspanLayout::resolve(types)?,
            wait_reasons: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> &'static Layout {
        Layout::for_version(&GoVersion::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn the_table_has_every_version_in_order() {
        let minors: Vec<u32> = Layout::table().iter().map(|layout| layout.minor).collect();
        assert_eq!(minors, (18..=27).collect::<Vec<_>>());
        assert!(Layout::for_version(&GoVersion::parse("go1.17.1").unwrap()).is_none());
        assert!(Layout::for_version(&GoVersion::parse("go1.28").unwrap()).is_none());
    }

    #[test]
    fn what_was_verified_by_hand_is_what_the_table_says() {
        for layout in Layout::table() {
            assert_eq!(
                (
                    layout.g.stack_lo,
                    layout.g.stack_hi,
                    layout.g.sched_sp,
                    layout.g.sched_pc,
                    layout.g.sched_g
                ),
                (0, 8, 56, 64, 72),
                "1.{}",
                layout.minor
            );
            assert_eq!(layout.wait_reason(2), Some("IO wait"));
            assert_eq!(layout.wait_reason(255), None);
        }
        assert_eq!(layout("go1.20.3").g.goid, 152);
        assert_eq!(layout("go1.24.1").g.goid, 160);
        assert_eq!((layout("go1.25.1").sudog.c, layout("go1.26.1").sudog.c), (80, 96));
        assert_eq!((layout("go1.19").inlined_call.size, layout("go1.20").inlined_call.size), (20, 16));
        assert_eq!((layout("go1.21").mspan.elemsize, layout("go1.22").mspan.elemsize), (112, 104));
        assert_eq!(layout("go1.27.3").wait_reason(20), Some("chan send"));
        assert_eq!(layout("go1.25.3").wait_reason(15), Some("chan send"));
        assert!(layout("go1.26.6").same_offsets(layout("go1.26.6")));
        assert!(!layout("go1.26.6").same_offsets(layout("go1.25.6")));
    }
}
