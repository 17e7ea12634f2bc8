//! What a Kubernetes node is made of here: Debian's packages, and what builds the rest from Debian's sources.

use std::path::Path;

use super::Need;

pub fn each() -> Vec<Need> {
    let version = |what, why, program, packages| Need::program(what, why, program, &["--version"], packages);
    let file = |what, why, path: &str, packages| {
        let found = Path::new(path).exists().then(|| path.to_owned());
        Need::packaged(what, why, found, packages)
    };
    vec![
        version("etcd", "keeps what the API server is told", "etcd", &["etcd-server"]),
        version("containerd", "runs the node's containers", "containerd", &["containerd"]),
        file(
            "CNI plugins",
            "give pods their addresses",
            "/usr/lib/cni/ptp",
            &["containernetworking-plugins"],
        ),
        file("Go 1.19", "builds Kubernetes 1.20", "/usr/lib/go-1.19/bin/go", &["golang-1.19-go"]),
        version("dpkg-source", "unpacks its source", "dpkg-source", &["dpkg-dev"]),
        version("rsync", "is used by its build", "rsync", &["rsync"]),
        version("gcc", "builds what holds a pod's namespaces", "gcc", &["gcc", "libc6-dev"]),
    ]
}
