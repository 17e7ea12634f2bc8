//! A list of pods as Kubernetes writes it (`v1.PodList` or `meta.k8s.io/v1.PartialObjectMetadataList`): of each pod the
//! metadata, everything else is passed over as it is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::known::Pod;
use crate::process::container::is_name;

/// Four times what a node of Kubernetes is made for.
const PODS: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct List {
    kind: String,
    /// Go writes an empty list as null.
    items: Option<Vec<Item>>,
}

#[derive(Debug, Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    uid: String,
    name: String,
    #[serde(default)]
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    /// A static pod's uid on its node. The API server's pod of that name is a mirror with a uid of its own.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

impl List {
    /// By the uid that the node's cgroups have.
    pub(super) fn pods(self) -> Result<HashMap<String, Arc<Pod>>, String> {
        if !matches!(self.kind.as_str(), "PodList" | "PartialObjectMetadataList") {
            return Err(format!("the answer is no list of pods but `{}`", self.kind.escape_debug()));
        }
        let mut pods = HashMap::new();
        for Item { metadata } in self.items.unwrap_or_default().into_iter().take(PODS) {
            if !is_name(&metadata.name) || !(metadata.namespace.is_empty() || is_name(&metadata.namespace)) {
                continue;
            }
            let uid = metadata.annotations.and_then(|annotations| annotations.mirror).unwrap_or(metadata.uid);
            let labels = metadata.labels.unwrap_or_default();
            pods.insert(uid, Arc::new(Pod { name: metadata.name, namespace: metadata.namespace, labels }));
        }
        Ok(pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HashMap<String, Arc<Pod>>, String> {
        serde_json::from_str::<List>(text).map_err(|error| error.to_string())?.pods()
    }

    #[test]
    fn both_kinds_and_static_pods() {
        let pods = read(
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[
                {"metadata":{"name":"checkout-0","namespace":"shop","uid":"aa-bb","labels":{"app":"checkout"}},
                 "spec":{"containers":[{"name":"x"}]},"status":{"phase":"Running"}},
                {"metadata":{"name":"etcd-node","namespace":"kube-system","uid":"cc-dd",
                 "annotations":{"kubernetes.io/config.mirror":"0123456789abcdef","more":"of it"}}},
                {"metadata":{"name":"a\nb","namespace":"shop","uid":"ee"}}]}"#,
        )
        .unwrap();
        assert_eq!(pods["aa-bb"].labels["app"], "checkout");
        assert_eq!(pods["0123456789abcdef"].name, "etcd-node");
        assert_eq!(pods.len(), 2, "a name that is none is not taken");
        assert!(read(r#"{"kind":"PartialObjectMetadataList","items":null}"#).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_says_so() {
        assert!(read(r#"{"kind":"Status","message":"no"}"#).unwrap_err().contains("Status"));
        for odd in ["", "[]", r#"{"kind":"PodList","items":[{"metadata":{"uid":7}}]}"#, "<html>"] {
            read(odd).unwrap_err();
        }
    }
}
