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

/// What is done meanwhile is not excused from file permissions.
pub fn without_override<T>(what: impl FnOnce() -> T) -> T {
    let both = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];
    both.iter().for_each(|capability| caps::drop(None, CapSet::Effective, *capability).unwrap());
    let done = what();
    both.iter().for_each(|capability| caps::raise(None, CapSet::Effective, *capability).unwrap());
    done
}
