//! What a target is called: a name that stays when the process is restarted, and never a pid.
//!
//! After its systemd unit, or its executable and, in another pod or container, where that is. Only graphic ASCII
//! without `/`: a name stands in labels, in addresses of pages and in files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::process::container;

/// Longest name, with its number.
const LENGTH: usize = 64;

/// Whether it may be given to a target.
pub(crate) fn is_one(name: &str) -> bool {
    !name.is_empty() && name.len() <= LENGTH && name.bytes().all(is_good) && name != "." && name != ".."
}

fn is_good(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".:@_-".contains(&byte)
}

/// What a process is called after, before it is numbered.
pub(crate) fn base(exe: Option<&str>, comm: &str, place: &Place) -> String {
    let file = exe.and_then(|exe| exe.rsplit('/').next()).filter(|file| !file.is_empty()).unwrap_or(comm);
    let name = match place {
        Place::Unit(unit) => unit.clone(),
        Place::Elsewhere(id) => format!("{}@{}", cut(file, 48), id.get(..12).unwrap_or(id)),
        Place::Here => file.to_owned(),
    };
    let clean: String =
        name.chars().map(|c| if c.is_ascii() && is_good(c as u8) { c } else { '_' }).collect();
    let clean = cut(&clean, LENGTH - 5);
    if matches!(clean, "" | "." | "..") { "process".to_owned() } else { clean.to_owned() }
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What tells a process from others of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing. Beside us in our own pod or container there is only one of its kind.
    Here,
    Unit(String),
    /// Another pod, by its uid, or another container, by its id. The pod outlives its containers, so it goes first.
    Elsewhere(String),
}

impl Place {
    pub(crate) fn of(proc: &Path, pid: u32) -> Self {
        if container::is_beside_us(proc, pid) {
            return Self::Here;
        }
        let ids = container::ids(proc, pid);
        if let Some(id) = ids.pod_uid.or(ids.container_id) {
            return Self::Elsewhere(id);
        }
        container::cgroup(proc, pid).and_then(|path| unit(&path)).map_or(Self::Here, Self::Unit)
    }
}

fn unit(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|part| part.strip_suffix(".service")).map(str::to_owned)
}

/// Names in use. The first of a kind has the bare name, further ones a number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    taken: BTreeMap<String, ()>,
}

impl Names {
    pub(crate) fn take(&mut self, base: &str) -> String {
        let name = std::iter::once(base.to_owned())
            .chain((2..).map(|number| format!("{}-{number}", cut(base, LENGTH - 6))))
            .find(|name| !self.taken.contains_key(name))
            .unwrap_or_else(|| base.to_owned());
        self.taken.insert(name.clone(), ());
        name
    }

    pub(crate) fn free(&mut self, name: &str) {
        self.taken.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_unit_pod_container_or_executable() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("10");
        std::fs::create_dir(&folder).unwrap();
        let of = |exe: &str, cgroup: &str| {
            std::fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            base(Some(exe), "comm", &Place::of(root.path(), 10))
        };
        assert_eq!(of("/usr/sbin/nginx", "/system.slice/nginx.service"), "nginx");
        assert_eq!(of("/usr/bin/x", "/user.slice/user-0.slice/session-3.scope"), "x");
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(of("/app/checkout", &format!("/docker/{id}")), "checkout@0123456789ab");
        assert_eq!(of("/a", &format!("/system.slice/docker-{id}.scope")), "a@0123456789ab");
        let pod = "ab12cd34-ab12-ab12-ab12-ab12cd34ef56";
        assert_eq!(of("/a", &format!("/kubepods/besteffort/pod{pod}/{id}")), "a@ab12cd34-ab1");
        // Whichever driver the node has, the name is the same.
        let slice = format!("/kubepods.slice/kubepods-pod{}.slice/crio-{id}.scope", pod.replace('-', "_"));
        assert_eq!(of("/a", &slice), "a@ab12cd34-ab1");
        assert_eq!(base(None, "comm", &Place::Here), "comm");
    }

    #[test]
    fn whatever_a_process_is_called_is_made_a_name() {
        let long = "x".repeat(300);
        for exe in ["/tmp/a b\n\"<script>\u{202e}", "/", "", "..", &long, "/ä/öüß"] {
            let name = base(Some(exe), "", &Place::Here);
            assert!(is_one(&name), "{exe:?} {name:?}");
        }
        assert!(!is_one("") && !is_one("a/b") && !is_one("..") && !is_one(&long) && !is_one("ä"));
    }

    #[test]
    fn numbered_from_the_second_and_freed() {
        let mut names = Names::default();
        assert_eq!([names.take("a"), names.take("a"), names.take("a")], ["a", "a-2", "a-3"]);
        names.free("a-2");
        assert_eq!(names.take("a"), "a-2");
        assert!(is_one(&names.take(&"x".repeat(59))) && is_one(&names.take(&"x".repeat(59))));
    }
}
