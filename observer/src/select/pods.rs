//! The pods of this node, by uid: name, namespace and labels, as the API server or the node's kubelet lists them, and
//! only where the configuration asks for it. A process is in the pod that its cgroup path names, which it cannot choose.
//!
//! Costs one request every 30 s, and one more when a process is found in a pod that is not known yet; a node has a few
//! hundred pods at the most, and nothing but their metadata is kept.

#[cfg(feature = "kubernetes")]
mod ask;
mod known;
#[cfg(feature = "kubernetes")]
mod list;
pub(crate) mod selector;

use std::sync::Arc;

use anyhow::Result;

pub use known::{Options, Pod, Pods};

/// Has the pods asked for from now on, in a thread of its own.
#[cfg(feature = "kubernetes")]
pub fn ask(options: Options) -> Result<Arc<Pods>> {
    let (pods, woken) = Pods::new();
    let pods = Arc::new(pods);
    ask::start(options, &pods, woken)?;
    Ok(pods)
}

#[cfg(not(feature = "kubernetes"))]
pub fn ask(_: Options) -> Result<Arc<Pods>> {
    anyhow::bail!("kubernetes.pods: this observer was built without the feature `kubernetes`")
}
