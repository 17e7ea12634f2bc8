//! Looks through `/proc` for processes that meet the rules, in a thread of its own: reading of a process that hangs in
//! the kernel may hang with it, and then only what is not known yet stays unknown.
//!
//! A look costs some 10 µs a process that is new, 3 µs one that was seen before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::name;
use super::pods::Pods;
use super::rules::{Candidate, Rule};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// What a process executes may change what it is: after this it is looked at as if it were new.
const STALE: Duration = Duration::from_secs(30);

/// A process that meets a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub pid: u32,
    /// With the pid it is the process's identity.
    pub start_ticks: u64,
    /// Index of the first rule that it meets.
    pub rule: usize,
    /// What it is called before it is numbered.
    pub base: String,
}

/// One look: everything that is there now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    pub found: Vec<Found>,
    /// Which rules these are.
    pub edition: u64,
}

/// The thread's other end.
pub(crate) struct Discovery {
    rules: Sender<Arc<[Rule]>>,
    looks: Receiver<Scan>,
}

impl Discovery {
    pub(crate) fn start(rules: Arc<[Rule]>, pods: Arc<Pods>) -> std::io::Result<Self> {
        let (send_rules, receive_rules) = mpsc::channel();
        let (send_looks, receive_looks) = sync_channel(1);
        // Not joined at the end: it may hang, and holds nothing.
        thread::Builder::new()
            .name("discover".to_owned())
            .spawn(move || run(rules, &pods, &receive_rules, &send_looks))?;
        Ok(Self { rules: send_rules, looks: receive_looks })
    }

    /// From now on these; looks of the old ones have a lower edition.
    pub(crate) fn set_rules(&self, rules: Arc<[Rule]>) {
        // It ends only with us.
        let _ = self.rules.send(rules);
    }

    /// The newest look, if there is one since the last call.
    pub(crate) fn look(&self) -> Option<Scan> {
        self.looks.try_iter().last()
    }
}

fn run(mut rules: Arc<[Rule]>, pods: &Pods, changes: &Receiver<Arc<[Rule]>>, looks: &SyncSender<Scan>) {
    let proc = Path::new("/proc");
    let mut edition = 0;
    let mut seen = Seen::default();
    loop {
        let look = Scan { found: seen.look(proc, &rules, pods), edition };
        // Nobody took the last one: the next is newer anyway.
        if let Err(mpsc::TrySendError::Disconnected(_)) = looks.try_send(look) {
            return;
        }
        match changes.recv_timeout(EVERY) {
            Ok(changed) => {
                rules = changed;
                edition += 1;
                seen = Seen { waited: true, ..Seen::default() };
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What is known of the processes of the last look.
#[derive(Default)]
pub(crate) struct Seen {
    processes: HashMap<(u32, u64), Known>,
    /// Not the first look: whoever is new now has just been started.
    waited: bool,
    /// Of the list of pods.
    edition: u64,
}

struct Known {
    comm: String,
    at: Instant,
    met: Option<(usize, String)>,
}

impl Seen {
    /// Every process that meets a rule. One that has just been forked is shown from the next look on: it may be
    /// about to execute something else.
    pub(crate) fn look(&mut self, proc: &Path, rules: &[Rule], pods: &Pods) -> Vec<Found> {
        let now = Instant::now();
        let edition = pods.edition();
        let same_pods = self.edition == edition;
        let mut next = HashMap::new();
        let mut found = Vec::new();
        for process in Candidate::all(proc) {
            let key = (process.pid, process.stat.start_ticks);
            let before = self.processes.remove(&key);
            let settled = before.is_some() || !self.waited;
            let known = before
                .filter(|known| {
                    same_pods && known.comm == process.stat.comm && now.duration_since(known.at) < STALE
                })
                .unwrap_or_else(|| Known {
                    comm: process.stat.comm.clone(),
                    at: now,
                    met: meets(proc, &process, rules, pods),
                });
            if settled && let Some((rule, base)) = &known.met {
                let (pid, start_ticks) = key;
                found.push(Found { pid, start_ticks, rule: *rule, base: base.clone() });
            }
            next.insert(key, known);
        }
        self.processes = next;
        self.waited = true;
        self.edition = edition;
        // The oldest first: names go by it.
        found.sort_by_key(|found| (found.start_ticks, found.pid));
        found
    }
}

fn meets(proc: &Path, process: &Candidate, rules: &[Rule], pods: &Pods) -> Option<(usize, String)> {
    let index = rules.iter().position(|rule| rule.meets(proc, process, pods) == Some(true))?;
    let base = match &rules[index].name {
        Some(name) => name.clone(),
        None => {
            let place = name::Place::of(proc, process.pid);
            name::base(process.exe(proc).as_deref(), &process.stat.comm, &place)
        }
    };
    Some((index, base))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::rules::Spec;
    use super::*;

    #[test]
    fn finds_what_is_there_at_once_and_what_comes_at_the_second_look() {
        let directory = tempfile::tempdir().unwrap();
        let twin = directory.path().join("disc-twin");
        std::os::unix::fs::symlink("/bin/sleep", &twin).unwrap();
        let spec = Spec { cmdline: Some(r"disc-twin 98[12]$".into()), ..Spec::default() };
        let rules = [spec.rule().unwrap()];
        let mut first = Command::new(&twin).arg("981").spawn().unwrap();
        let mut seen = Seen::default();
        let proc = Path::new("/proc");
        let pods = Pods::none();
        let mut pids = Vec::new();
        for _ in 0..100 {
            // It is ours until it executes.
            seen = Seen::default();
            pids = seen.look(proc, &rules, &pods).iter().map(|found| found.pid).collect();
            if !pids.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(pids, [first.id()]);
        let mut second = Command::new(&twin).arg("982").spawn().unwrap();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(seen.look(proc, &rules, &pods).len(), 1);
        let found = seen.look(proc, &rules, &pods);
        assert_eq!(found.len(), 2);
        assert!(name::is_one(&found[0].base), "{found:?}");
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(seen.look(proc, &rules, &pods), []);
    }
}
