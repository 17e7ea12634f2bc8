//! What makes container images, and what plays pods of them. Both work on local files: nothing is pulled.

use super::Need;

/// What images are made with.
pub fn builders() -> Vec<Need> {
    vec![
        Need::program("buildah", "makes container images", "buildah", &["--version"], &["buildah"]),
        Need::program(
            "setcap",
            "gives a file capabilities",
            "sh",
            &["-c", "command -v setcap"],
            &["libcap2-bin"],
        ),
        Need::program(
            "strip",
            "takes debug information off what is shipped",
            "strip",
            &["--version"],
            &["binutils"],
        ),
    ]
}

/// And what the tests in pods take.
pub fn each() -> Vec<Need> {
    let mut needs = builders();
    needs.extend([
        Need::program("podman", "plays pods", "podman", &["--version"], &["podman", "catatonit"]),
        // crun does not run where both versions of cgroups are mounted.
        Need::program("runc", "runs containers", "runc", &["--version"], &["runc"]),
        Need::program(
            "slirp4netns",
            "gives pods a network of their own",
            "slirp4netns",
            &["--version"],
            &["slirp4netns"],
        ),
        Need::program("curl", "asks observer from a pod's network", "curl", &["--version"], &["curl"]),
    ]);
    needs
}
