//! Copies of user stacks, to be unwound in user space.

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// The stack is copied in steps of this, until one fails: above a first frame is the end.
const STEP: usize = 1024;

/// Copies up to `most` bytes of the stack from its top; how many were good.
///
/// # Safety
///
/// `to` has room for `ROOM` bytes, a multiple of the step.
#[inline(always)]
pub unsafe fn copy<const ROOM: usize>(to: *mut u8, sp: u64, most: usize) -> usize {
    let mut done = 0;
    while done < ROOM && done < most {
        // SAFETY: `done` is a multiple of the step below the room; the helper checks the source.
        let failed =
            unsafe { bpf_probe_read_user(to.add(done).cast(), STEP as u32, (sp + done as u64) as *const _) };
        if failed != 0 {
            break;
        }
        done += STEP;
    }
    done
}
