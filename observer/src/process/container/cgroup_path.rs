//! What a process's cgroup path says of where it runs: the pod's uid and the container's id, as each runtime writes them.
//!
//! Reads `/proc/PID/cgroup`, 64 KiB of it at most. A process cannot choose it.

use std::path::Path;

use crate::process::files::read_some;

/// Of hex digits: what every runtime names a container by.
const CONTAINER_ID: usize = 64;
/// Kubernetes' longest name of a pod or a node.
const NAME: usize = 253;

/// What a cgroup path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    /// As the API server writes it.
    pub pod_uid: Option<String>,
    pub container_id: Option<String>,
}

/// By the cgroup path that says the most.
pub(crate) fn ids(proc: &Path, pid: u32) -> Ids {
    let mut best = Ids::default();
    for path in cgroups(proc, pid) {
        let ids = Ids { pod_uid: pod_uid(&path), container_id: container_id(&path) };
        best.pod_uid = best.pod_uid.or(ids.pod_uid);
        best.container_id = best.container_id.or(ids.container_id);
    }
    best
}

/// Its path in the v2 hierarchy, else in the first that has one.
pub(crate) fn cgroup(proc: &Path, pid: u32) -> Option<String> {
    let paths = cgroups(proc, pid);
    paths.iter().find(|path| *path != "/").or(paths.first()).cloned()
}

/// Its paths in all hierarchies, that of v2 first.
pub(super) fn cgroups(proc: &Path, pid: u32) -> Vec<String> {
    let bytes = read_some(&proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut paths = Vec::new();
    for line in text.lines().take(64) {
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(_), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let at = if hierarchy == "0" { 0 } else { paths.len() };
        paths.insert(at, path.to_owned());
    }
    paths
}

/// Where systemd runs the runtime and cgroupfs is its driver, the three parts of a name stand in one: `slice:cri:id`.
pub(super) fn parts(cgroup: &str) -> impl DoubleEndedIterator<Item = &str> {
    cgroup.split(['/', ':']).filter(|part| !part.is_empty())
}

/// `pod<uid>` of the cgroupfs driver, `kubepods-besteffort-pod<uid with _>.slice` of systemd's. Of static pods the uid
/// is a hash without dashes.
pub(super) fn pod_uid(cgroup: &str) -> Option<String> {
    parts(cgroup).find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let (before, id) = part.rsplit_once("pod")?;
        let right = (before.is_empty() || before.ends_with('-'))
            && (32..=36).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'));
        right.then(|| id.replace('_', "-"))
    })
}

/// What stands for a pod: Kubernetes' uid, or the cgroup that podman makes for one.
pub(super) fn pod(cgroup: &str) -> Option<String> {
    let podman = || {
        let parts: Vec<&str> = parts(cgroup).collect();
        parts.windows(2).find_map(|pair| match pair {
            [parent, pod] if *parent == "libpod_parent" && is_id(pod) => Some((*pod).to_owned()),
            [_, pod] => {
                let id = pod.strip_suffix(".slice")?.rsplit_once("libpod_pod_")?.1;
                is_id(id).then(|| id.to_owned())
            }
            _ => None,
        })
    };
    pod_uid(cgroup).or_else(podman)
}

/// `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>`: the innermost.
pub(super) fn container_id(cgroup: &str) -> Option<String> {
    let mut parts = parts(cgroup).rev();
    let (part, id) = parts.find_map(|part| {
        let id = part.strip_suffix(".scope").unwrap_or(part).rsplit('-').next()?;
        is_id(id).then_some((part, id))
    })?;
    let is_podmans_pod = part == id && parts.next() == Some("libpod_parent");
    (!is_podmans_pod).then(|| id.to_owned())
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == CONTAINER_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Names of pods, namespaces, nodes and containers are of this alphabet.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}
