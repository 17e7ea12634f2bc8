//! What the tests on other kernels need: an emulator, a shell for its machines, and an archiver.

use std::path::Path;

use super::Need;
use crate::run;

pub fn each() -> Vec<Need> {
    let version =
        |program| run::output(program, &["--version"]).and_then(|text| Some(text.lines().next()?.to_owned()));
    let busybox = Path::new("/bin/busybox").exists().then(|| "/bin/busybox".to_owned());
    let tmux = run::output("tmux", &["-V"]).map(|text| text.trim().to_owned());
    vec![
        Need::packaged(
            "QEMU",
            "runs other kernels",
            version("qemu-system-x86_64"),
            &["qemu-system-x86", "seabios"],
        ),
        Need::packaged(
            "busybox",
            "is the shell of the machines that QEMU runs",
            busybox,
            &["busybox-static"],
        ),
        Need::packaged("cpio", "packs what those machines start with", version("cpio"), &["cpio"]),
        Need::packaged(
            "gcc",
            "builds the C programs that the tests observe",
            version("gcc"),
            &["gcc", "libc6-dev"],
        ),
        Need::packaged("tmux", "is the terminal in which the full-screen view is tested", tmux, &["tmux"]),
    ]
}
