//! What is known of the node's pods, shared by who looks for processes and who follows them.
//!
//! A few hundred pods with their labels; uids that no list had are remembered, a few thousand of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sample::Container;

/// Uids that no list had. More of them than a node can have pods are none of Kubernetes'.
const MISSED: usize = 4096;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The whole address of the list.
    pub url: String,
    /// Read anew for each request: the kubelet replaces it every hour.
    pub token_file: PathBuf,
    /// Who signed the server's certificate; `None` to believe any.
    pub ca_file: Option<PathBuf>,
    pub every: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

/// What is known of them. Shared by who looks for processes and who follows them.
pub struct Pods {
    known: Mutex<Known>,
    /// Wakes who asks; there is nobody where nothing was asked for.
    wake: SyncSender<()>,
}

#[derive(Default)]
struct Known {
    by_uid: HashMap<String, Arc<Pod>>,
    edition: u64,
    trouble: Option<String>,
    missed: HashSet<String>,
}

impl Pods {
    /// Knows of none, and asks nobody.
    pub fn none() -> Arc<Self> {
        Arc::new(Self::new().0)
    }

    pub(super) fn new() -> (Self, Receiver<()>) {
        let (wake, woken) = sync_channel(1);
        (Self { known: Mutex::default(), wake }, woken)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod with this uid. One that is asked for and not known has the list asked for anew, once.
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        let mut known = self.known();
        let found = known.by_uid.get(uid).cloned();
        if found.is_none() && known.missed.len() < MISSED && known.missed.insert(uid.to_owned()) {
            // Full: it has been woken already.
            let _ = self.wake.try_send(());
        }
        found
    }

    /// Rises with every list that differs from the one before.
    pub fn edition(&self) -> u64 {
        self.known().edition
    }

    /// Why the last request came to nothing.
    pub fn trouble(&self) -> Option<String> {
        self.known().trouble.clone()
    }

    /// Gives a container of another pod than ours the names that its cgroup path does not say.
    pub fn name(&self, container: &mut Container) {
        if container.pod.is_some() {
            return;
        }
        if let Some(pod) = container.pod_uid.as_deref().and_then(|uid| self.get(uid)) {
            container.pod = Some(pod.name.clone());
            container.namespace = Some(pod.namespace.clone());
        }
    }

    #[cfg(any(feature = "kubernetes", test))]
    pub(in crate::select) fn take(&self, listed: HashMap<String, Arc<Pod>>) {
        let mut known = self.known();
        known.trouble = None;
        known.missed.retain(|uid| !listed.contains_key(uid));
        if known.missed.len() >= MISSED {
            known.missed.clear();
        }
        if known.by_uid != listed {
            known.by_uid = listed;
            known.edition += 1;
        }
    }

    /// What is known stays. Whether this is news.
    #[cfg(any(feature = "kubernetes", test))]
    pub(super) fn fail(&self, trouble: String) -> bool {
        let mut known = self.known();
        let before = known.trouble.replace(trouble);
        before != known.trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(uids: &[&str]) -> HashMap<String, Arc<Pod>> {
        uids.iter()
            .map(|uid| {
                let pod = Pod { name: format!("{uid}-0"), namespace: "shop".to_owned(), ..Pod::default() };
                ((*uid).to_owned(), Arc::new(pod))
            })
            .collect()
    }

    #[test]
    fn who_is_not_known_has_it_asked_for_once() {
        let (pods, woken) = Pods::new();
        assert!(pods.get("a").is_none() && pods.get("a").is_none());
        assert!(woken.try_recv().is_ok());
        assert!(pods.get("a").is_none() && woken.try_recv().is_err(), "it would be asked for without end");
        pods.take(list(&["a", "b"]));
        assert_eq!((pods.edition(), pods.get("a").unwrap().name.as_str()), (1, "a-0"));
        pods.take(list(&["a", "b"]));
        assert_eq!(pods.edition(), 1, "nothing has changed");
        pods.take(list(&["b"]));
        assert!(pods.get("a").is_none() && woken.try_recv().is_ok(), "it was known, and may come back");
    }

    #[test]
    fn what_is_known_outlives_a_failure() {
        let (pods, _woken) = Pods::new();
        pods.take(list(&["a"]));
        assert!(pods.fail("no route".to_owned()) && !pods.fail("no route".to_owned()));
        assert!(pods.get("a").is_some() && pods.trouble().is_some());
        pods.take(list(&["a"]));
        assert_eq!(pods.trouble(), None);
    }

    #[test]
    fn our_own_pods_name_is_the_downward_apis() {
        let (pods, _woken) = Pods::new();
        pods.take(list(&["a"]));
        let mut other = Container { pod_uid: Some("a".to_owned()), ..Container::default() };
        let mut ours = Container { pod: Some("ours".to_owned()), ..other.clone() };
        pods.name(&mut other);
        pods.name(&mut ours);
        assert_eq!((other.pod.as_deref(), other.namespace.as_deref()), (Some("a-0"), Some("shop")));
        assert_eq!((ours.pod.as_deref(), ours.namespace), (Some("ours"), None));
    }
}
