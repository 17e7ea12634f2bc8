//! Which processes are targets: rules that a process meets or not.
//!
//! Reads what `/proc` says of a process, and of that only what some rule asks for: the command line of a process that
//! hangs in the kernel may hang its reader.

use std::fs;
use std::path::Path;

use globset::{Glob, GlobMatcher};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use thiserror::Error;

use super::pods::Pods;
use super::pods::selector::{Selector, SelectorError};
use crate::process::container;
use crate::process::files::read_some;
use crate::process::find::read_stat;
use crate::process::stat::Stat;

/// Longer command lines are matched by their beginning.
const COMMAND_LINE: usize = 4096;

/// A process must meet all of its conditions; there is at least one.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What targets of this rule are called, instead of after their container, unit or exe.
    pub name: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
enum Condition {
    Pid(u32),
    Comm(String),
    Exe(GlobMatcher, String),
    NotExe(GlobMatcher, String),
    CommandLine(Regex),
    Cgroup(GlobMatcher, String),
    Pod(GlobMatcher, String),
    Namespace(GlobMatcher, String),
    PodLabels(Selector),
}

/// What a rule is made of, as people write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    pub name: Option<String>,
    pub pid: Option<u32>,
    /// A path, or a file name, or a glob of either.
    pub exe: Option<String>,
    /// As `exe`, and what it must not be: on its own no condition.
    pub not_exe: Option<String>,
    pub comm: Option<String>,
    /// A regular expression that some part of the command line matches.
    pub cmdline: Option<String>,
    /// A glob of the whole cgroup path.
    pub cgroup: Option<String>,
    /// A glob of the name of the pod; this and what follows needs the list of pods (`kubernetes.pods`).
    pub pod: Option<String>,
    /// A glob of the pod's namespace.
    pub namespace: Option<String>,
    /// A label selector, as `kubectl get --selector` takes it.
    pub pod_labels: Option<String>,
}

#[derive(Debug, Error)]
pub enum RuleError {
    #[error("it has no condition: give one of pid, exe, comm, cmdline, cgroup, pod, namespace, pod_labels")]
    Empty,
    #[error("pid 0 is no process")]
    Pid,
    #[error("comm `{0}` is longer than the kernel keeps (15 bytes): use exe or cmdline")]
    Comm(String),
    #[error("{what} is empty")]
    Nothing { what: &'static str },
    #[error("{what} `{pattern}` is no glob: {source}")]
    Glob { what: &'static str, pattern: String, source: globset::Error },
    #[error("cmdline `{pattern}` is no regular expression: {reason}")]
    Regex { pattern: String, reason: String },
    #[error("pod_labels: {0}")]
    Selector(#[from] SelectorError),
    #[error("name `{0}`: at most 64 letters, digits and .:@_- are a name")]
    Name(String),
}

impl Spec {
    pub fn rule(&self) -> Result<Rule, RuleError> {
        let mut conditions = Vec::new();
        if let Some(pid) = self.pid {
            conditions.push(Condition::Pid(if pid == 0 { return Err(RuleError::Pid) } else { pid }));
        }
        if let Some(comm) = given("comm", self.comm.as_ref())? {
            if comm.len() > 15 {
                return Err(RuleError::Comm(comm.to_owned()));
            }
            conditions.push(Condition::Comm(comm.to_owned()));
        }
        if let Some(exe) = given("exe", self.exe.as_ref())? {
            conditions.push(Condition::Exe(glob("exe", exe)?, exe.to_owned()));
        }
        if let Some(cgroup) = given("cgroup", self.cgroup.as_ref())? {
            conditions.push(Condition::Cgroup(glob("cgroup", cgroup)?, cgroup.to_owned()));
        }
        if let Some(pattern) = given("cmdline", self.cmdline.as_ref())? {
            let regex = RegexBuilder::new(pattern).size_limit(1 << 20).build();
            let regex = regex.map_err(|error| {
                let reason = error.to_string();
                // Over several lines it draws an arrow; the last says what is wrong.
                let reason =
                    reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                RuleError::Regex { pattern: pattern.to_owned(), reason }
            })?;
            conditions.push(Condition::CommandLine(regex));
        }
        if let Some(pod) = given("pod", self.pod.as_ref())? {
            conditions.push(Condition::Pod(glob("pod", pod)?, pod.to_owned()));
        }
        if let Some(namespace) = given("namespace", self.namespace.as_ref())? {
            conditions.push(Condition::Namespace(glob("namespace", namespace)?, namespace.to_owned()));
        }
        if let Some(selector) = given("pod_labels", self.pod_labels.as_ref())? {
            conditions.push(Condition::PodLabels(Selector::parse(selector)?));
        }
        if conditions.is_empty() {
            return Err(RuleError::Empty);
        }
        if let Some(exe) = given("not_exe", self.not_exe.as_ref())? {
            conditions.push(Condition::NotExe(glob("not_exe", exe)?, exe.to_owned()));
        }
        let name = self.name.clone();
        match name {
            Some(name) if !super::name::is_one(&name) => Err(RuleError::Name(name)),
            name => Ok(Rule { name, conditions }),
        }
    }
}

fn given<'a>(what: &'static str, value: Option<&'a String>) -> Result<Option<&'a str>, RuleError> {
    match value.map(String::as_str) {
        Some("") => Err(RuleError::Nothing { what }),
        value => Ok(value),
    }
}

fn glob(what: &'static str, pattern: &str) -> Result<GlobMatcher, RuleError> {
    let glob =
        Glob::new(pattern).map_err(|source| RuleError::Glob { what, pattern: pattern.to_owned(), source })?;
    Ok(glob.compile_matcher())
}

impl Rule {
    /// Whether the process is a target; `None` when it is gone.
    pub fn meets(&self, proc: &Path, process: &Candidate, pods: &Pods) -> Option<bool> {
        for condition in &self.conditions {
            if !condition.meets(proc, process, pods)? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Whether it cannot be answered without the list of pods.
    pub fn needs_pods(&self) -> bool {
        use Condition::{Namespace, Pod, PodLabels};
        self.conditions.iter().any(|condition| matches!(condition, Pod(..) | Namespace(..) | PodLabels(_)))
    }

    /// In words, as the command line writes it.
    pub fn words(&self) -> String {
        let conditions: Vec<String> = self
            .conditions
            .iter()
            .map(|condition| match condition {
                Condition::Pid(pid) => format!("pid {pid}"),
                Condition::Comm(comm) => format!("comm {comm}"),
                Condition::Exe(_, pattern) => format!("exe {pattern}"),
                Condition::NotExe(_, pattern) => format!("exe not {pattern}"),
                Condition::CommandLine(regex) => format!("cmdline {regex}"),
                Condition::Cgroup(_, pattern) => format!("cgroup {pattern}"),
                Condition::Pod(_, pattern) => format!("pod {pattern}"),
                Condition::Namespace(_, pattern) => format!("namespace {pattern}"),
                Condition::PodLabels(selector) => format!("pod labels {selector}"),
            })
            .collect();
        conditions.join(", ")
    }
}

/// A process that may be a target.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub pid: u32,
    pub stat: Stat,
}

impl Candidate {
    /// Every process that could be observed at all: none of the kernel's, none that has ended, not ourselves.
    pub fn all(proc: &Path) -> Vec<Self> {
        let myself = std::process::id();
        let entries = fs::read_dir(proc).into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != myself)
            .filter_map(|pid| Some(Self { pid, stat: read_stat(proc, pid)? }))
            .filter(|process| !process.stat.is_kernel_thread() && !process.stat.is_dead())
            .collect()
    }

    pub fn exe(&self, proc: &Path) -> Option<String> {
        let exe = fs::read_link(proc.join(self.pid.to_string()).join("exe")).ok()?;
        Some(exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
    }

    /// Its path in the v2 hierarchy, else in the first that has one.
    pub fn cgroup(&self, proc: &Path) -> Option<String> {
        container::cgroup(proc, self.pid)
    }

    fn command_line(&self, proc: &Path) -> Option<String> {
        let mut bytes = read_some(&proc.join(self.pid.to_string()).join("cmdline")).ok()?;
        bytes.truncate(COMMAND_LINE);
        for byte in &mut bytes {
            if *byte == 0 {
                *byte = b' ';
            }
        }
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }
}

impl Condition {
    fn meets(&self, proc: &Path, process: &Candidate, pods: &Pods) -> Option<bool> {
        // A pod that is not known yet meets nothing: it is asked for, and looked at again.
        let pod = || pods.get(&container::ids(proc, process.pid).pod_uid?);
        Some(match self {
            Self::Pid(pid) => *pid == process.pid,
            Self::Comm(comm) => *comm == process.stat.comm,
            // Of a process that we may not look into, nothing more is known.
            Self::Exe(matcher, pattern) => process.exe(proc).is_some_and(|exe| runs(&exe, matcher, pattern)),
            Self::NotExe(matcher, pattern) => {
                !process.exe(proc).is_some_and(|exe| runs(&exe, matcher, pattern))
            }
            Self::CommandLine(regex) => regex.is_match(&process.command_line(proc)?),
            Self::Cgroup(matcher, _) => matcher.is_match(process.cgroup(proc)?),
            Self::Pod(matcher, _) => pod().is_some_and(|pod| matcher.is_match(&pod.name)),
            Self::Namespace(matcher, _) => pod().is_some_and(|pod| matcher.is_match(&pod.namespace)),
            Self::PodLabels(selector) => pod().is_some_and(|pod| selector.matches(&pod.labels)),
        })
    }
}

fn runs(exe: &str, matcher: &GlobMatcher, pattern: &str) -> bool {
    let file = exe.rsplit('/').next().unwrap_or(exe);
    matcher.is_match(if pattern.contains('/') { exe } else { file })
}

#[cfg(test)]
mod tests {
    use super::super::pods::Pod;
    use super::*;

    fn spec(set: impl FnOnce(&mut Spec)) -> Spec {
        let mut spec = Spec::default();
        set(&mut spec);
        spec
    }

    fn process(root: &Path, pid: u32, comm: &str, arguments: &str, exe: &str, cgroup: &str) {
        let folder = root.join(pid.to_string());
        fs::create_dir(&folder).unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cmdline"), arguments.replace(' ', "\0")).unwrap();
        fs::write(folder.join("cgroup"), cgroup).unwrap();
        std::os::unix::fs::symlink(exe, folder.join("exe")).unwrap();
    }

    #[test]
    fn each_condition_and_all_together() {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path();
        process(proc, 10, "web", "/srv/web --port 80", "/srv/web", "0::/system.slice/web.service\n");
        process(proc, 11, "web", "/opt/web --port 81", "/opt/web (deleted)", "1:name=systemd:/user\n0::/\n");
        let all = Candidate::all(proc);
        assert_eq!(all.len(), 2);
        let pods = Pods::none();
        let met = |spec: &Spec| {
            let rule = spec.rule().unwrap();
            let mut pids: Vec<u32> =
                all.iter().filter(|p| rule.meets(proc, p, &pods).unwrap()).map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(met(&spec(|s| s.pid = Some(11))), [11]);
        assert_eq!(met(&spec(|s| s.comm = Some("web".into()))), [10, 11]);
        assert_eq!(met(&spec(|s| s.exe = Some("web".into()))), [10, 11]);
        assert_eq!(met(&spec(|s| s.exe = Some("/opt/web".into()))), [11]);
        assert_eq!(met(&spec(|s| s.exe = Some("/*/web".into()))), [10, 11]);
        assert_eq!(met(&spec(|s| s.cmdline = Some("port 8[1]$".into()))), [11]);
        assert_eq!(met(&spec(|s| s.cgroup = Some("*/web.service".into()))), [10]);
        assert_eq!(met(&spec(|s| s.cgroup = Some("/user".into()))), [11]);
        let but = spec(|s| {
            s.comm = Some("web".into());
            s.not_exe = Some("/srv/*".into());
        });
        assert_eq!(met(&but), [11]);
        assert_eq!(but.rule().unwrap().words(), "comm web, exe not /srv/*");
        let both = spec(|s| {
            s.comm = Some("web".into());
            s.cmdline = Some("80".into());
        });
        assert_eq!(met(&both), [10]);
        assert_eq!(both.rule().unwrap().words(), "comm web, cmdline 80");
    }

    #[test]
    fn by_pod_and_only_where_the_list_has_it() {
        let root = tempfile::tempdir().unwrap();
        let (known, other) = ("ab12cd34-ab12-ab12-ab12-ab12cd34ef56", "00000000-ab12-ab12-ab12-ab12cd34ef56");
        for (pid, cgroup) in
            [(10, format!("/kubepods/pod{known}/x")), (11, format!("/kubepods/pod{other}/x"))]
        {
            process(root.path(), pid, "web", "/web", "/web", &format!("0::{cgroup}\n"));
        }
        process(root.path(), 12, "web", "/web", "/web", "0::/system.slice/web.service\n");
        let pods = Pods::none();
        let met = |set: fn(&mut Spec)| {
            let rule = spec(set).rule().unwrap();
            assert!(rule.needs_pods());
            let mut candidates = Candidate::all(root.path());
            candidates.retain(|process| rule.meets(root.path(), process, &pods) == Some(true));
            candidates.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        assert!(met(|s| s.pod = Some("*".into())).is_empty(), "none is known");
        let pod = Pod {
            name: "checkout-7f9c".to_owned(),
            namespace: "shop".to_owned(),
            labels: [("app".to_owned(), "checkout".to_owned())].into(),
        };
        pods.take([(known.to_owned(), pod.into())].into());
        assert_eq!(met(|s| s.pod = Some("checkout-*".into())), [10]);
        assert_eq!(met(|s| s.namespace = Some("shop".into())), [10]);
        assert_eq!(met(|s| s.pod_labels = Some("app in (checkout, cart),!canary".into())), [10]);
        assert!(met(|s| s.pod_labels = Some("!app".into())).is_empty(), "of the others nothing is known");
    }

    #[test]
    fn what_is_no_rule_says_why() {
        let refused = |set: fn(&mut Spec)| spec(set).rule().unwrap_err().to_string();
        assert!(refused(|_| ()).contains("no condition"));
        assert!(refused(|s| s.not_exe = Some("pause".into())).contains("no condition"));
        assert!(refused(|s| s.pid = Some(0)).contains("pid 0"));
        assert!(refused(|s| s.comm = Some("a-very-long-command".into())).contains("15 bytes"));
        assert!(refused(|s| s.exe = Some(String::new())).contains("exe is empty"));
        assert!(refused(|s| s.exe = Some("[".into())).contains("no glob"));
        assert!(
            refused(|s| s.pod_labels = Some("a b".into())).contains("pod_labels: `a b`: write key=value")
        );
        let message = refused(|s| s.cmdline = Some("(a".into()));
        assert!(
            message.contains("no regular expression: unclosed group") && !message.contains('\n'),
            "{message}"
        );
        let message = refused(|s| {
            s.pid = Some(1);
            s.name = Some("a/b".into());
        });
        assert!(message.contains("a/b"));
    }
}
