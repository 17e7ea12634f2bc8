//! What a pod is called and where it lives, from the node's own hand: the kubelet keeps the logs of each pod in
//! `/var/log/pods/NAMESPACE_NAME_UID`, and the directory's name is all that is looked at.
//!
//! Seen by `/proc/PID/root` of the process that the runtime runs the container under, which is outside of every pod: a
//! pod that writes such a directory for itself is not believed. For an observer in the node's PID namespace; in a pod's
//! nobody outside is to be seen. Costs one listing, when a target is found.

use std::fs::OpenOptions;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::cgroup_path::{ids, is_name};
use crate::process::find::read_stat;

/// From a process up to what runs its container.
const ANCESTORS: usize = 64;
/// A node has some hundred pods, and some logs of those that were.
const ENTRIES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub namespace: String,
    pub pod: String,
}

/// The pod with this uid that the process runs in.
pub(super) fn named(proc: &Path, pid: u32, uid: &str) -> Option<Named> {
    let node = outside(proc, pid, uid)?;
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(proc.join(node.to_string()).join("root"))
        .ok()?;
    // Where the node has the logs elsewhere, it is by a link, which leads from its root and not from ours.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let logs = openat2(root.as_fd(), "var/log/pods", how).ok()?;
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", logs.as_raw_fd())).ok()?;
    entries.take(ENTRIES).flatten().find_map(|entry| parse(entry.file_name().to_str()?, uid))
}

/// The first of its ancestors that is not of its pod.
fn outside(proc: &Path, pid: u32, uid: &str) -> Option<u32> {
    let mut at = pid;
    for _ in 0..ANCESTORS {
        at = read_stat(proc, at)?.parent;
        if at == 0 {
            return None;
        }
        if ids(proc, at).pod_uid.as_deref() != Some(uid) {
            return Some(at);
        }
    }
    None
}

/// None of the three has a `_` in it.
fn parse(directory: &str, uid: &str) -> Option<Named> {
    let mut parts = directory.split('_');
    let named = Named { namespace: parts.next()?.to_owned(), pod: parts.next()?.to_owned() };
    let right = parts.next() == Some(uid) && parts.next().is_none();
    (right && is_name(&named.namespace) && is_name(&named.pod)).then_some(named)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    const UID: &str = "ab12cd34-ab12-ab12-ab12-ab12cd34ef56";

    /// A /proc with `(pid, parent, cgroup)`, each with a root of its own.
    fn proc(root: &Path, processes: &[(u32, u32, String)]) -> PathBuf {
        let proc = root.join("proc");
        for (pid, parent, cgroup) in processes {
            let folder = proc.join(pid.to_string());
            fs::create_dir_all(folder.join("root/var/log/pods")).unwrap();
            let rest = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 7".to_owned();
            fs::write(folder.join("stat"), format!("{pid} (a) S {parent} {rest}")).unwrap();
            fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        }
        proc
    }

    #[test]
    fn by_the_nodes_directory_and_never_by_the_pods_own() {
        let root = tempfile::tempdir().unwrap();
        let inside = format!("/kubepods/besteffort/pod{UID}/{}", "a".repeat(64));
        let shim = "/system.slice/containerd.service".to_owned();
        let proc = proc(root.path(), &[(30, 20, inside.clone()), (20, 10, inside), (10, 1, shim)]);
        let logs = |pid: u32| proc.join(format!("{pid}/root/var/log/pods"));
        // Its own, and its parent's, which is in the pod too.
        for pid in [30, 20] {
            fs::create_dir(logs(pid).join(format!("kube-system_forged_{UID}"))).unwrap();
        }
        assert_eq!(named(&proc, 30, UID), None);
        fs::create_dir(logs(10).join(format!("shop_other_{}", UID.replace("ab12", "ffff")))).unwrap();
        assert_eq!(named(&proc, 30, UID), None);
        fs::create_dir(logs(10).join(format!("shop_checkout-0_{UID}"))).unwrap();
        let right = Some(Named { namespace: "shop".to_owned(), pod: "checkout-0".to_owned() });
        assert_eq!(named(&proc, 30, UID), right);
        // A node that has its logs elsewhere says so by a link, from its own root.
        fs::rename(logs(10), proc.join("10/root/var/data")).unwrap();
        symlink("/var/data", logs(10)).unwrap();
        assert_eq!(named(&proc, 30, UID), right);
    }

    #[test]
    fn odd_names_are_none() {
        for odd in ["", UID, "_", "a_b", "a_b_c_d", "a\n_b_c", "_b_c", "../x_b_c"] {
            assert_eq!(parse(odd, "c"), None, "{odd}");
        }
        assert_eq!(parse(&format!("a_b_{UID}"), UID).unwrap().pod, "b");
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(parse(&format!("kube-system_etcd-node_{hash}"), hash).unwrap().pod, "etcd-node");
    }
}
