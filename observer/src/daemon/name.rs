//! What a target is called: a name that stays when the process is restarted, and never a pid.
//!
//! After its systemd unit, or its executable and, in another pod or container, where that is. Only graphic ASCII
//! without `/`: a name stands in labels, in addresses of pages and in files.

use std::collections::BTreeMap;

/// Longest name, with its number.
const LENGTH: usize = 64;

/// Whether it may be given to a target.
pub fn is_one(name: &str) -> bool {
    !name.is_empty() && name.len() <= LENGTH && name.bytes().all(is_good) && name != "." && name != ".."
}

fn is_good(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".:@_-".contains(&byte)
}

/// What a process is called after, before it is numbered.
pub fn base(exe: Option<&str>, comm: &str, cgroup: Option<&str>, own_cgroup: Option<&str>) -> String {
    let file = exe.and_then(|exe| exe.rsplit('/').next()).filter(|file| !file.is_empty()).unwrap_or(comm);
    let place = cgroup.and_then(place);
    let name = match place {
        Some(Place::Unit(unit)) => unit.to_owned(),
        // Beside us in our own pod or container there is only one of its kind.
        Some(Place::Pod(id) | Place::Container(id)) if own_cgroup.is_none_or(|own| !own.contains(id)) => {
            format!("{}@{}", cut(file, 48), id.get(..12).unwrap_or(id))
        }
        _ => file.to_owned(),
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

enum Place<'a> {
    Unit(&'a str),
    Pod(&'a str),
    Container(&'a str),
}

/// The pod outlives its containers, so it goes first.
fn place(cgroup: &str) -> Option<Place<'_>> {
    let parts = || cgroup.split('/').filter(|part| !part.is_empty());
    let pod = parts().find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let id = part.rsplit("pod").next().filter(|_| part.contains("pod"))?;
        (id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_')))
            .then_some(id)
    });
    if let Some(pod) = pod {
        return Some(Place::Pod(pod));
    }
    let container = parts().rev().find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit('-').next()?;
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    });
    if let Some(container) = container {
        return Some(Place::Container(container));
    }
    parts().rev().find_map(|part| part.strip_suffix(".service")).map(Place::Unit)
}

/// Names in use. The first of a kind has the bare name, further ones a number.
#[derive(Debug, Default)]
pub struct Names {
    taken: BTreeMap<String, ()>,
}

impl Names {
    pub fn take(&mut self, base: &str) -> String {
        let name = std::iter::once(base.to_owned())
            .chain((2..).map(|number| format!("{}-{number}", cut(base, LENGTH - 6))))
            .find(|name| !self.taken.contains_key(name))
            .unwrap_or_else(|| base.to_owned());
        self.taken.insert(name.clone(), ());
        name
    }

    pub fn free(&mut self, name: &str) {
        self.taken.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_unit_pod_container_or_executable() {
        let of = |exe: &str, cgroup: &str| base(Some(exe), "comm", Some(cgroup), Some("/kubepods/pod-mine"));
        assert_eq!(of("/usr/sbin/nginx", "/system.slice/nginx.service"), "nginx");
        assert_eq!(of("/usr/bin/x", "/user.slice/user-0.slice/session-3.scope"), "x");
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(of("/app/checkout", &format!("/docker/{id}")), "checkout@0123456789ab");
        assert_eq!(of("/a", &format!("/system.slice/docker-{id}.scope")), "a@0123456789ab");
        let pod = "ab12cd34-ab12-ab12-ab12-ab12cd34ef56";
        assert_eq!(of("/a", &format!("/kubepods/besteffort/pod{pod}/{id}")), "a@ab12cd34-ab1");
        let own = format!("/kubepods/pod{pod}/other");
        assert_eq!(base(Some("/a"), "c", Some(&format!("/kubepods/pod{pod}/{id}")), Some(&own)), "a");
        let slice = format!("/kubepods.slice/kubepods-pod{}.slice/x", pod.replace('-', "_"));
        assert_eq!(of("/a", &slice), "a@ab12cd34_ab1");
        assert_eq!(base(None, "comm", None, None), "comm");
    }

    #[test]
    fn whatever_a_process_is_called_is_made_a_name() {
        let long = "x".repeat(300);
        for exe in ["/tmp/a b\n\"<script>\u{202e}", "/", "", "..", &long, "/ä/öüß"] {
            let name = base(Some(exe), "", None, None);
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
