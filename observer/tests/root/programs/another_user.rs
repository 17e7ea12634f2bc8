//! Targets of another user than the one who watches, as in a pod.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use caps::{CapSet, Capability};

/// As another user than the one who watches.
pub fn as_nobody(program: PathBuf) -> Command {
    let folder = program.parent().unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

/// What is done meanwhile is not excused from file permissions: this thread, and what it starts.
pub fn without_override<T>(what: impl FnOnce() -> T) -> T {
    let _given_back = Dropped::now();
    what()
}

const OVERRIDE: [Capability; 2] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];

/// This thread's capabilities to pass over file permissions, given back at the end: the next test runs in the same thread,
/// also when this one fails.
struct Dropped;

impl Dropped {
    fn now() -> Self {
        let dropped = Self;
        for capability in OVERRIDE {
            caps::drop(None, CapSet::Effective, capability).unwrap();
        }
        dropped
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        for capability in OVERRIDE {
            let raised = caps::raise(None, CapSet::Effective, capability);
            // A panic within a panic would end all tests.
            assert!(raised.is_ok() || std::thread::panicking(), "{raised:?}");
        }
    }
}
