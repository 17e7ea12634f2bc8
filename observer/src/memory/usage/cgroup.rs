//! The memory limit of a process: the lowest one on the way up its cgroups, version 1 or 2, and how much of it is used.
//!
//! Reads `/proc/PID/cgroup`, the mount tables of observer and of the process (a sidecar sees the limit only
//! through the mount of the container it looks at), and each limit file on the way, which stay open.
//! Both tables are told to us relative to our own cgroup namespace, so that they fit each other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::files::read_at_start;

/// More levels than any tree has in practice; the kernel's own limit is higher.
const MAX_LEVELS: usize = 32;
const CGROUP_BYTES: usize = 32 << 10;
const MOUNTINFO_BYTES: usize = 4 << 20;
/// Version 1 says "no limit" by the largest multiple of a page; nothing near it limits anybody.
const NO_LIMIT: u64 = 1 << 60;

/// `memory.stat` has some 60 short lines.
const STAT_BYTES: usize = 16 << 10;

/// A limit, and what counts against it now, without the file pages that the kernel gives back before it would kill
/// anybody: the working set, as Kubernetes counts it. A service that writes logs has the rest of its limit full of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub bytes: u64,
    pub usage_bytes: Option<u64>,
}

/// The limits that a process is under.
#[derive(Debug)]
pub(crate) struct Limits {
    pid: u32,
    membership: Option<File>,
    /// The text that `levels` was made from: a process can be moved.
    resolved: Vec<u8>,
    levels: Vec<Level>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Level {
    limit: File,
    usage: Option<File>,
    stat: Option<File>,
}

impl Limits {
    pub(crate) fn of(pid: u32) -> Self {
        let membership = File::open(format!("/proc/{pid}/cgroup")).ok();
        Self { pid, membership, resolved: Vec::new(), levels: Vec::new(), buffer: Vec::new() }
    }

    /// The lowest limit, or `None` where there is none or none that can be seen from here.
    pub(crate) fn lowest(&mut self) -> Option<Limit> {
        let text = read_at_start(self.membership.as_ref()?, &mut self.buffer, CGROUP_BYTES).ok()?;
        if text != self.resolved {
            self.resolved = text.to_vec();
            self.levels = self.resolve();
        }
        let mut lowest: Option<Limit> = None;
        for level in &self.levels {
            let Some(bytes) = read_number(&level.limit, &mut self.buffer) else { continue };
            if bytes < NO_LIMIT && lowest.is_none_or(|lowest| bytes < lowest.bytes) {
                let usage = level.usage.as_ref().and_then(|file| read_number(file, &mut self.buffer));
                let stat = level.stat.as_ref();
                let spare = stat.and_then(|file| read_at_start(file, &mut self.buffer, STAT_BYTES).ok());
                let spare = spare.and_then(inactive_file).unwrap_or(0);
                let usage_bytes = usage.map(|usage| usage.saturating_sub(spare));
                lowest = Some(Limit { bytes, usage_bytes });
            }
        }
        lowest
    }

    fn resolve(&self) -> Vec<Level> {
        let groups = parse_membership(&self.resolved);
        let own = mounts("/proc/self/mountinfo", Path::new("/"));
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        let of_target = mounts(&format!("/proc/{}/mountinfo", self.pid), &root);
        let mut levels = Vec::new();
        for (version, path) in &groups {
            for directory in directories(*version, path, &own, &of_target) {
                let (limit, usage) = match version {
                    Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                    Version::Two => ("memory.max", "memory.current"),
                };
                // The root of the tree has no such file, nor has a tree without the memory controller.
                if let Ok(limit) = File::open(directory.join(limit)) {
                    let open = |name| File::open(directory.join(name)).ok();
                    levels.push(Level { limit, usage: open(usage), stat: open("memory.stat") });
                }
            }
        }
        levels
    }
}

/// File pages not used lately, of the cgroup and those below it, from its `memory.stat`.
fn inactive_file(stat: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stat);
    let value = |wanted: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(' '));
        fields.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.trim().parse().ok())
    };
    // In version 1 the plain name leaves out the cgroups below.
    value("total_inactive_file").or_else(|| value("inactive_file"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A mount of a cgroup tree that may limit memory.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The cgroup at the mount point, from the root of our cgroup namespace.
    root: Vec<String>,
    point: PathBuf,
}

/// The cgroups that a process is in, of those trees that may limit memory.
fn parse_membership(text: &[u8]) -> Vec<(Version, Vec<String>)> {
    let text = String::from_utf8_lossy(text);
    let mut groups = Vec::new();
    for line in text.lines().take(64) {
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == "memory") {
            groups.push((Version::One, components(path)));
        } else if hierarchy == "0" && controllers.is_empty() {
            groups.push((Version::Two, components(path)));
        }
    }
    groups
}

fn components(path: &str) -> Vec<String> {
    // A cgroup that was removed under its last process is marked so.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.split('/').filter(|part| !part.is_empty()).take(4096).map(str::to_owned).collect()
}

fn mounts(table: &str, root: &Path) -> Vec<Mount> {
    let mut buffer = Vec::new();
    let read =
        File::open(table).and_then(|file| read_at_start(&file, &mut buffer, MOUNTINFO_BYTES).map(drop));
    match read {
        Ok(()) => parse_mounts(&buffer, root),
        Err(_) => Vec::new(),
    }
}

/// The cgroup mounts of a mount table; `root` leads to the root that its mount points start from.
fn parse_mounts(text: &[u8], root: &Path) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(|line| parse_mount(line, root)).collect()
}

fn parse_mount(line: &[u8], root: &Path) -> Option<Mount> {
    let line = str::from_utf8(line).ok()?;
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (cgroup, point) = (fields.next()?, fields.next()?);
    let mut rest = rest.split(' ');
    let version = match rest.next()? {
        "cgroup2" => Version::Two,
        // The third field after the dash has the controllers of this hierarchy.
        "cgroup" if rest.nth(1)?.split(',').any(|option| option == "memory") => Version::One,
        _ => return None,
    };
    let point = unescape(point);
    let point = root.join(point.strip_prefix('/')?);
    Some(Mount { version, root: components(&unescape(cgroup)), point })
}

/// Mount tables write space, tab, line end and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let octal = bytes.get(index + 1..index + 4).filter(|_| byte == b'\\');
        let escaped = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(escaped.unwrap_or(byte));
        index += if escaped.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The directories of a cgroup and of its parents, as far up as one of the mounts shows them.
fn directories(version: Version, group: &[String], own: &[Mount], of_target: &[Mount]) -> Vec<PathBuf> {
    let mut best: Option<(&Mount, &[String])> = None;
    // Our own mount is preferred; the shortest root shows the most parents.
    for mount in own.iter().chain(of_target).filter(|mount| mount.version == version) {
        let Some(below) = group.strip_prefix(mount.root.as_slice()) else { continue };
        // What lies outside of our namespace's root has no name below a mount of it.
        if below.iter().any(|part| part == "..") {
            continue;
        }
        if best.is_none_or(|(_, shown)| below.len() > shown.len()) {
            best = Some((mount, below));
        }
    }
    let Some((mount, below)) = best else { return Vec::new() };
    let mut directory = mount.point.clone();
    let mut found = vec![directory.clone()];
    for part in below.iter().take(MAX_LEVELS) {
        directory.push(part);
        found.push(directory.clone());
    }
    found
}

/// A number in a file of its own; `None` for `max`, for what is no number, and when the cgroup is gone.
fn read_number(file: &File, buffer: &mut Vec<u8>) -> Option<u64> {
    let text: io::Result<&[u8]> = read_at_start(file, buffer, 64);
    str::from_utf8(text.ok()?).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"24 1 0:22 / /proc rw - proc proc rw\n\
        30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn paths(membership: &[u8], own: &[u8], of_target: &[u8]) -> Vec<String> {
        let own = parse_mounts(own, Path::new("/"));
        let of_target = parse_mounts(of_target, Path::new("/proc/7/root"));
        parse_membership(membership)
            .iter()
            .flat_map(|(version, path)| directories(*version, path, &own, &of_target))
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn version_2_goes_up_to_the_root() {
        assert_eq!(
            paths(b"0::/system.slice/a b.service\n", V2, V2),
            ["/sys/fs/cgroup", "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/system.slice/a b.service"]
        );
    }

    #[test]
    fn version_1_finds_its_memory_tree() {
        let mounts = b"31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
            34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let membership = b"5:cpu,cpuacct:/x\n4:memory:/docker/0123\n1:name=systemd:/docker/0123\n";
        let expected =
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/docker", "/sys/fs/cgroup/memory/docker/0123"];
        assert_eq!(paths(membership, mounts, b""), expected);
    }

    #[test]
    fn hybrid_looks_at_both_trees() {
        let mounts = b"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            paths(b"4:memory:/a\n0::/\n", mounts, b""),
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/unified"]
        );
    }

    #[test]
    fn a_container_without_a_cgroup_namespace_strips_what_its_mount_hides() {
        let mounts = b"35 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(
            paths(b"4:memory:/docker/0123/worker\n", mounts, b""),
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/worker"]
        );
        assert!(paths(b"4:memory:/docker/4567\n", mounts, b"").is_empty());
    }

    #[test]
    fn a_sidecar_looks_through_the_mount_of_the_container_beside_it() {
        let of_target = b"30 24 0:27 /../main /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(
            paths(b"0::/../main/child\n", V2, of_target),
            ["/proc/7/root/sys/fs/cgroup", "/proc/7/root/sys/fs/cgroup/child"]
        );
        // Without it the limit cannot be seen from here, and is not guessed.
        assert!(paths(b"0::/../main\n", V2, b"").is_empty());
    }

    #[test]
    fn hostile_tables_are_left_out() {
        assert!(
            paths(b"::\n0:\nx\n0::\xff/..\n", b" - cgroup2\n1 2 3 / sys - cgroup2 x y\n", b"").is_empty()
        );
        assert_eq!(unescape(r"/a\040b\134\0\9"), "/a b\\\\0\\9");
        assert_eq!(paths(b"0::/gone (deleted)\n", V2, b"").last().unwrap(), "/sys/fs/cgroup/gone");
    }

    #[test]
    fn spare_pages_are_read_from_either_version() {
        assert_eq!(inactive_file(b"cache 1\ninactive_file 7\ntotal_inactive_file 9\n"), Some(9));
        assert_eq!(inactive_file(b"inactive_file 7"), Some(7));
        for odd in [
            &b""[..],
            b"inactive_file",
            b"inactive_file -1\n",
            b"inactive_file 99999999999999999999999\n",
            b"\xff",
        ] {
            assert_eq!(inactive_file(odd), None);
        }
    }

    #[test]
    fn the_lowest_limit_and_its_usage_come_from_the_same_level() {
        let directory = tempfile::tempdir().unwrap();
        let level = |name: &str, limit: &str, usage: &str| {
            let path = directory.path().join(name);
            std::fs::write(path.with_extension("max"), limit).unwrap();
            std::fs::write(path.with_extension("current"), usage).unwrap();
            Level {
                limit: File::open(path.with_extension("max")).unwrap(),
                usage: File::open(path.with_extension("current")).ok(),
                stat: None,
            }
        };
        let mut limits = Limits::of(std::process::id());
        limits.lowest();
        limits.levels = vec![
            level("root", "9223372036854771712\n", "5\n"),
            level("pod", "1073741824\n", "700\n"),
            level("container", "max\n", "600\n"),
        ];
        assert_eq!(limits.lowest(), Some(Limit { bytes: 1 << 30, usage_bytes: Some(700) }));
        let stat = directory.path().join("stat");
        std::fs::write(&stat, "anon 90\ninactive_anon 1\ninactive_file 150\nactive_file 9\n").unwrap();
        limits.levels[1].stat = File::open(stat).ok();
        assert_eq!(
            limits.lowest(),
            Some(Limit { bytes: 1 << 30, usage_bytes: Some(550) }),
            "the working set"
        );
        limits.levels.truncate(1);
        assert_eq!(limits.lowest(), None);
    }
}
