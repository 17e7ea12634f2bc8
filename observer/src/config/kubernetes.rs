//! Whom to ask for the node's pods: the API server, or the kubelet of the node.

use std::path::PathBuf;
use std::time::Duration;

use super::raw::Kubernetes;
use super::value::{ConfigError, duration, within, wrong};
use crate::process::container::is_name;
use crate::select::pods::Options;

/// What Kubernetes mounts into a pod that is to have it.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// `None` where nobody is to be asked.
pub(super) fn pods(raw: &Kubernetes) -> Result<Option<Options>, ConfigError> {
    let Some(source) = raw.pods.as_deref() else { return Ok(None) };
    if !cfg!(feature = "kubernetes") {
        let message = "this observer was built without the feature `kubernetes`";
        return Err(wrong("kubernetes.pods", message.to_owned()));
    }
    let url = match source {
        "api" => {
            let what = "in a pod the environment says it (KUBERNETES_SERVICE_HOST)";
            let api = address("kubernetes.api", raw.api.as_deref(), what)?;
            let node = raw.node.as_deref().filter(|node| is_name(node)).ok_or_else(|| {
                let message = "the name of this node; set NODE_NAME by the downward API (spec.nodeName)";
                wrong("kubernetes.node", message.to_owned())
            })?;
            // Version 0: out of the API server's memory, whatever it has.
            format!("{api}/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&resourceVersion=0")
        }
        "kubelet" => {
            let what = "set NODE_IP by the downward API (status.hostIP)";
            format!("{}/pods", address("kubernetes.kubelet", raw.kubelet.as_deref(), what)?)
        }
        other => return Err(wrong("kubernetes.pods", format!("`{other}`: may be api or kubelet"))),
    };
    let verify = !raw.insecure_skip_verify.unwrap_or(false);
    let every = duration("kubernetes.every", raw.every.as_ref(), Duration::from_secs(30))?;
    within("kubernetes.every", every, Duration::from_secs(5), Duration::from_secs(3600))?;
    Ok(Some(Options {
        url,
        token_file: PathBuf::from(raw.token_file.as_deref().unwrap_or(TOKEN)),
        ca_file: verify.then(|| PathBuf::from(raw.ca_file.as_deref().unwrap_or(CA))),
        every,
    }))
}

fn address(key: &str, given: Option<&str>, remedy: &str) -> Result<String, ConfigError> {
    let Some(given) = given else { return Err(wrong(key, format!("its address is not known; {remedy}"))) };
    let is_one = ["http://", "https://"].iter().any(|scheme| given.starts_with(scheme))
        && !given.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#'));
    if !is_one {
        return Err(wrong(key, format!("`{}` is no http or https address", given.escape_debug())));
    }
    Ok(given.trim_end_matches('/').to_owned())
}

#[cfg(all(test, feature = "kubernetes"))]
mod tests {
    use super::super::Raw;
    use super::*;

    fn inside(name: &str) -> Option<String> {
        let value = match name {
            "KUBERNETES_SERVICE_HOST" => "fd00::1",
            "KUBERNETES_SERVICE_PORT" => "443",
            "NODE_NAME" => "node-1",
            "NODE_IP" => "10.0.0.7",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn a_pods_environment_says_where_both_are() {
        let environment = Raw::from_environment(inside).kubernetes;
        let url = |source: &str| {
            pods(&Kubernetes { pods: Some(source.to_owned()), ..environment.clone() }).unwrap().unwrap().url
        };
        assert_eq!(
            url("api"),
            "https://[fd00::1]:443/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0"
        );
        assert_eq!(url("kubelet"), "https://10.0.0.7:10250/pods");
        assert_eq!(pods(&environment).unwrap(), None, "nobody asked for it");
    }

    #[test]
    fn what_is_missing_says_where_it_comes_from() {
        let refused = |change: fn(&mut Kubernetes)| {
            let mut raw = Kubernetes { pods: Some("api".to_owned()), ..Kubernetes::default() };
            change(&mut raw);
            pods(&raw).unwrap_err().to_string()
        };
        assert!(refused(|_| ()).contains("KUBERNETES_SERVICE_HOST"));
        assert!(refused(|raw| raw.api = Some("https://a".to_owned())).contains("NODE_NAME"));
        assert!(refused(|raw| raw.api = Some("ftp://a".to_owned())).contains("no http"));
        assert!(refused(|raw| raw.pods = Some("kubelet".to_owned())).contains("NODE_IP"));
        assert!(refused(|raw| raw.pods = Some("etcd".to_owned())).contains("may be api or kubelet"));
        let unfit = |raw: &mut Kubernetes| {
            raw.api = Some("https://a".to_owned());
            raw.node = Some("a&b".to_owned());
        };
        assert!(refused(unfit).contains("kubernetes.node"));
    }
}
