//! In which container and pod a process runs: by its cgroup path, by what the kubelet mounts into every container, for
//! our own pod by what the downward API put into our environment, and for others by how the node names their logs.
//!
//! Reads `/proc/PID/cgroup`, `/proc/PID/mountinfo` and `/proc/PID/ns/pid`; asks nobody. All of it is text that others
//! wrote: bounded, and taken only in the forms that runtimes write.

mod cgroup_path;
mod pod_logs;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::sample::Container;
use cgroup_path::{cgroups, container_id, parts, pod, pod_uid};

pub(crate) use cgroup_path::{Ids, cgroup, ids, is_name};

/// Mount tables of containers have some 40 lines.
const MOUNTINFO_BYTES: u64 = 1 << 20;

/// What the downward API may put into our environment, by `fieldRef`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    pod: Option<String>,
    namespace: Option<String>,
    pod_uid: Option<String>,
    node: Option<String>,
}

impl Own {
    fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let name = |key| variable(key).filter(|value| is_name(value));
        Self {
            pod: name("POD_NAME"),
            namespace: name("POD_NAMESPACE"),
            pod_uid: name("POD_UID"),
            node: name("NODE_NAME"),
        }
    }
}

/// Where the process runs; `None` for one that is in no container that we know the marks of.
pub(crate) fn of(pid: u32) -> Option<Container> {
    let proc = Path::new("/proc");
    let own = Own::from(|name| std::env::var(name).ok());
    let mounts = kubelet_mounts(&mount_table(proc, pid));
    let ids = ids(proc, pid);
    let uid = ids.pod_uid.clone();
    let mut container = describe(ids, &mounts, is_beside_us(proc, pid), own)?;
    // The uid by which the kernel says it, not one that the process may have mounted.
    if container.pod.is_none()
        && let Some(uid) = uid
        && let Some(named) = pod_logs::named(proc, pid, &uid)
    {
        container.pod = Some(named.pod);
        container.namespace = Some(named.namespace);
    }
    Some(container)
}

/// The parts put together. What the cgroup path says goes before what is mounted, which the process may have changed.
fn describe(ids: Ids, mounts: &Mounted, beside_us: bool, own: Own) -> Option<Container> {
    let mounts = mounts.clone();
    let agree = ids.pod_uid.is_none() || mounts.pod_uid.is_none() || ids.pod_uid == mounts.pod_uid;
    let mounted = if agree { mounts } else { Mounted::default() };
    let mut container = Container {
        id: ids.container_id,
        name: mounted.container,
        pod: None,
        namespace: None,
        pod_uid: ids.pod_uid.or(mounted.pod_uid),
        node: None,
    };
    if beside_us {
        container.pod = own.pod;
        container.namespace = own.namespace;
        container.pod_uid = container.pod_uid.or(own.pod_uid);
    }
    if container == Container::default() {
        return None;
    }
    container.node = own.node;
    Some(container)
}

/// Whether it is a process of our own pod, or of our own container: then there is only one of its kind.
pub(crate) fn is_beside_us(proc: &Path, pid: u32) -> bool {
    let same_namespace = || {
        let namespace = |pid: &str| fs::read_link(proc.join(pid).join("ns/pid")).ok();
        let ours = namespace("self");
        ours.is_some() && ours == namespace(&pid.to_string())
    };
    let ours = cgroups(proc, std::process::id());
    let its = cgroups(proc, pid);
    ours.iter().zip(&its).any(|(ours, its)| match beside(ours, its) {
        Beside::Yes => true,
        Beside::No => false,
        Beside::IfPidNamespaceIsShared => same_namespace(),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Beside {
    Yes,
    No,
    /// A sibling in a cgroup namespace of our own: of our pod, or just of our runtime.
    IfPidNamespaceIsShared,
}

fn beside(ours: &str, its: &str) -> Beside {
    match (pod(ours), pod(its)) {
        (Some(ours), Some(its)) if ours == its => return Beside::Yes,
        // A path that names a pod leads out of ours.
        (_, Some(_)) => return Beside::No,
        (_, None) => {}
    }
    if ours == its && container_id(ours).is_some() {
        Beside::Yes
    } else if its.starts_with("/../") && container_id(its).is_some() {
        Beside::IfPidNamespaceIsShared
    } else {
        Beside::No
    }
}

/// What the kubelet's mounts say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mounted {
    pod_uid: Option<String>,
    container: Option<String>,
}

fn mount_table(proc: &Path, pid: u32) -> Vec<u8> {
    let mut table = Vec::new();
    if let Ok(file) = File::open(proc.join(pid.to_string()).join("mountinfo")) {
        // What could be read of it is looked at.
        let _ = file.take(MOUNTINFO_BYTES).read_to_end(&mut table);
    }
    table
}

/// The kubelet mounts `…/pods/<uid>/etc-hosts` and `…/pods/<uid>/containers/<name>/<8 hex>`, the termination log, into
/// every container.
fn kubelet_mounts(table: &[u8]) -> Mounted {
    let mut found = Mounted::default();
    for line in table.split(|byte| *byte == b'\n') {
        let root = line.split(|byte| *byte == b' ').nth(3).and_then(|root| str::from_utf8(root).ok());
        let Some(root) = root.filter(|root| root.contains("/pods/")) else { continue };
        let parts: Vec<&str> = parts(root).collect();
        let Some(at) = parts.iter().position(|part| *part == "pods") else { continue };
        let Some((uid, rest)) = parts[at + 1..].split_first() else { continue };
        if pod_uid(&format!("pod{uid}")).is_none() {
            continue;
        }
        match rest {
            ["containers", name, log]
                if is_name(name) && log.len() == 8 && log.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                return Mounted { pod_uid: Some((*uid).to_owned()), container: Some((*name).to_owned()) };
            }
            ["etc-hosts"] => found.pod_uid = Some((*uid).to_owned()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "ab12cd34-ab12-ab12-ab12-ab12cd34ef56";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn every_driver_and_runtime() {
        let (id, flat) = (id('a'), UID.replace('-', "_"));
        let hash = "0123456789abcdef0123456789abcdef";
        for (path, pod, container) in [
            (format!("/kubepods/besteffort/pod{UID}/{id}"), Some(UID), true),
            (format!("/kubepods/pod{UID}/{id}"), Some(UID), true),
            (format!("/kubepods/burstable/pod{hash}/{id}"), Some(hash), true),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{flat}.slice/cri-containerd-{id}.scope"
                ),
                Some(UID),
                true,
            ),
            (format!("/kubepods.slice/kubepods-pod{flat}.slice/crio-{id}.scope/container"), Some(UID), true),
            // containerd on a node that systemd runs, with the cgroupfs driver.
            (
                format!(
                    "/system.slice/containerd.service/kubepods-besteffort-pod{flat}.slice:cri-containerd:{id}"
                ),
                Some(UID),
                true,
            ),
            (format!("/../cri-containerd-{id}.scope"), None, true),
            (format!("/docker/{id}"), None, true),
            (format!("/system.slice/docker-{id}.scope/init.scope"), None, true),
            (format!("/machine.slice/libpod-{id}.scope/container"), None, true),
            (format!("/libpod_parent/libpod-{id}"), None, true),
            (format!("/libpod_parent/{id}"), None, false),
            ("/system.slice/podman.service".to_owned(), None, false),
            ("/kubepods/pod../..".to_owned(), None, false),
            (format!("/{}", "podx".repeat(100_000)), None, false),
        ] {
            assert_eq!(pod_uid(&path).as_deref(), pod, "{path}");
            assert_eq!(container_id(&path), container.then(|| id.clone()), "{path}");
        }
    }

    #[test]
    fn who_is_of_our_pod() {
        let (mine, other) = (id('a'), id('b'));
        let pod = |id: &str| format!("/kubepods/pod{UID}/{id}");
        assert_eq!(beside(&pod(&mine), &pod(&other)), Beside::Yes);
        let elsewhere = pod(&other).replace("ab12cd34-", "00000000-");
        assert_eq!(beside(&pod(&mine), &elsewhere), Beside::No);
        let podman = |id: &str| format!("/libpod_parent/{}/{id}", self::id('c'));
        assert_eq!(beside(&podman(&mine), &podman(&other)), Beside::Yes);
        // In a cgroup namespace of our own, the way to a sibling is all there is to see.
        assert_eq!(beside("/", &format!("/../cri-containerd-{other}.scope")), Beside::IfPidNamespaceIsShared);
        assert_eq!(beside("/", &format!("/../../kubepods-pod{UID}.slice/crio-{other}.scope")), Beside::No);
        assert_eq!(beside("/", "/../../../system.slice/kubelet.service"), Beside::No);
        assert_eq!(beside("/", "/"), Beside::No, "that is how a bare machine looks");
        assert_eq!(beside("/", &pod(&other)), Beside::No);
    }

    #[test]
    fn the_kubelets_mounts_name_the_container() {
        let table = |middle: &str| {
            format!(
                "900 800 0:33 / / ro,relatime - overlay overlay rw\n\
                 901 900 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n{middle}"
            )
        };
        let log = |name: &str, log: &str| {
            let root = format!("/pods/{UID}/containers/{name}/{log}");
            table(&format!("902 900 8:1 {root} /dev/termination-log rw - ext4 /dev/sda1 rw\n"))
        };
        let named = |text: &str| kubelet_mounts(text.as_bytes()).container;
        assert_eq!(kubelet_mounts(table("").as_bytes()).pod_uid.as_deref(), Some(UID));
        assert_eq!(named(&log("checkout", "0a1b2c3d")).as_deref(), Some("checkout"));
        for odd in [log("a\\040b", "0a1b2c3d"), log("x", "data"), log(&"x".repeat(300), "0a1b2c3d")] {
            assert_eq!(named(&odd), None, "{odd}");
        }
        assert_eq!(kubelet_mounts(b"1 2 3 /pods\n\xff\n /pods/ /\n"), Mounted::default());
    }

    #[test]
    fn our_own_pod_is_called_by_the_downward_api_and_no_other() {
        let own = || {
            Own::from(|name| match name {
                "POD_NAME" => Some("checkout-0".to_owned()),
                "POD_NAMESPACE" => Some("shop".to_owned()),
                "NODE_NAME" => Some("node\n1".to_owned()),
                _ => None,
            })
        };
        let ids = || Ids { pod_uid: Some(UID.to_owned()), container_id: Some(id('a')) };
        let beside = describe(ids(), &Mounted::default(), true, own()).unwrap();
        assert_eq!((beside.pod.as_deref(), beside.namespace.as_deref()), (Some("checkout-0"), Some("shop")));
        assert_eq!(beside.node, None, "that is no name");
        let other = describe(ids(), &Mounted::default(), false, own()).unwrap();
        assert_eq!((other.pod, other.pod_uid.as_deref()), (None, Some(UID)));
        assert_eq!(describe(Ids::default(), &Mounted::default(), false, own()), None);
        // A process that mounts what looks like another pod's is not believed.
        let forged =
            Mounted { pod_uid: Some(UID.replace("ab12", "ffff")), container: Some("other".to_owned()) };
        assert_eq!(describe(ids(), &forged, false, own()).unwrap().name, None);
    }
}
