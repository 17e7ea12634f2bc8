//! What the configuration file, the environment and the flags may say, before it is checked: everything is optional,
//! and each of the three is laid over the one below it.

use std::collections::BTreeMap;

use serde::Deserialize;

pub use crate::select::rules::Spec as Target;

/// One layer. Its shape is that of the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    #[serde(rename = "target")]
    pub targets: Vec<Target>,
    pub web: Web,
    pub sampling: Sampling,
    pub metrics: Metrics,
    pub history: History,
    pub alerts: Alerts,
    pub log: Log,
    pub kubernetes: Kubernetes,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    pub listen: Option<Vec<String>>,
    pub config_file: Option<String>,
    pub external_url: Option<String>,
    pub telemetry_path: Option<String>,
    pub max_requests: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    pub interval: Option<String>,
    pub cpu: Option<String>,
    pub targets: Option<usize>,
    pub forget_after: Option<String>,
    pub ebpf: Option<bool>,
    pub exact: Option<bool>,
    pub hooks: Option<String>,
    pub allocations: Option<bool>,
    pub allocation_sample: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub sites: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    pub pods: Option<String>,
    pub api: Option<String>,
    pub kubelet: Option<String>,
    pub node: Option<String>,
    pub token_file: Option<String>,
    pub ca_file: Option<String>,
    pub insecure_skip_verify: Option<bool>,
    pub every: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    pub path: Option<String>,
    pub keep: Option<String>,
    pub max_bytes: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    pub log: Option<String>,
    pub least_confidence: Option<f64>,
    pub limit_share_per_hour: Option<String>,
    pub bytes_per_hour: Option<String>,
    pub time_to_limit: Option<String>,
    pub critical_time_to_limit: Option<String>,
    pub leak_for: Option<String>,
    pub growing_for: Option<String>,
    pub deadlocks: Option<bool>,
    pub keep_firing_for: Option<String>,
    pub repeat_interval: Option<String>,
    pub startup: Option<String>,
    pub webhook: Vec<Webhook>,
    pub alertmanager: Vec<Alertmanager>,
    pub silence: Vec<Silence>,
}

/// `url` may hold a token: it stays out of what is printed.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    pub name: Option<String>,
    pub url: Option<String>,
    pub url_file: Option<String>,
    pub template: Option<String>,
    pub template_file: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub timeout: Option<String>,
    pub give_up_after: Option<String>,
}

#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alertmanager {
    pub name: Option<String>,
    pub url: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub timeout: Option<String>,
    pub give_up_after: Option<String>,
    pub resend_interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Silence {
    pub target: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub weekdays: Vec<String>,
}

impl Webhook {
    pub fn to(url: String) -> Self {
        Self { url: Some(url), ..Self::default() }
    }
}

impl Alertmanager {
    pub fn to(url: String) -> Self {
        Self { url: Some(url), ..Self::default() }
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, url, url_file, template, template_file, headers, timeout, give_up_after } = self;
        f.debug_struct("Webhook")
            .field("name", name)
            .field("url", &url.as_ref().map(|_| "..."))
            .field("url_file", url_file)
            .field("template", template)
            .field("template_file", template_file)
            .field("headers", &headers.keys())
            .field("timeout", timeout)
            .field("give_up_after", give_up_after)
            .finish()
    }
}

impl std::fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, url, labels, headers, timeout, give_up_after, resend_interval } = self;
        f.debug_struct("Alertmanager")
            .field("name", name)
            .field("url", &url.as_ref().map(|_| "..."))
            .field("labels", labels)
            .field("headers", &headers.keys())
            .field("timeout", timeout)
            .field("give_up_after", give_up_after)
            .field("resend_interval", resend_interval)
            .finish()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: Option<String>,
    pub level: Option<String>,
}

impl Kubernetes {
    fn over(self, below: Self) -> Self {
        Self {
            pods: self.pods.or(below.pods),
            api: self.api.or(below.api),
            kubelet: self.kubelet.or(below.kubelet),
            node: self.node.or(below.node),
            token_file: self.token_file.or(below.token_file),
            ca_file: self.ca_file.or(below.ca_file),
            insecure_skip_verify: self.insecure_skip_verify.or(below.insecure_skip_verify),
            every: self.every.or(below.every),
        }
    }

    /// Where they are, from what Kubernetes and the downward API put into every environment.
    fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let host = |name: &str| {
            let host = variable(name)?;
            Some(if host.contains(':') { format!("[{host}]") } else { host })
        };
        let api = || {
            let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
            Some(format!("https://{}:{port}", host("KUBERNETES_SERVICE_HOST")?))
        };
        let kubelet = || Some(format!("https://{}:10250", host("NODE_IP")?));
        Self { api: api(), kubelet: kubelet(), node: variable("NODE_NAME"), ..Self::default() }
    }
}

impl Alerts {
    fn over(self, below: Self) -> Self {
        fn list<T>(ours: Vec<T>, below: Vec<T>) -> Vec<T> {
            if ours.is_empty() { below } else { ours }
        }
        Self {
            log: self.log.or(below.log),
            least_confidence: self.least_confidence.or(below.least_confidence),
            limit_share_per_hour: self.limit_share_per_hour.or(below.limit_share_per_hour),
            bytes_per_hour: self.bytes_per_hour.or(below.bytes_per_hour),
            time_to_limit: self.time_to_limit.or(below.time_to_limit),
            critical_time_to_limit: self.critical_time_to_limit.or(below.critical_time_to_limit),
            leak_for: self.leak_for.or(below.leak_for),
            growing_for: self.growing_for.or(below.growing_for),
            deadlocks: self.deadlocks.or(below.deadlocks),
            keep_firing_for: self.keep_firing_for.or(below.keep_firing_for),
            repeat_interval: self.repeat_interval.or(below.repeat_interval),
            startup: self.startup.or(below.startup),
            webhook: list(self.webhook, below.webhook),
            alertmanager: list(self.alertmanager, below.alertmanager),
            silence: list(self.silence, below.silence),
        }
    }
}

impl Raw {
    /// What this one does not say, the one below does. A list replaces the list below as a whole.
    pub fn over(self, below: Self) -> Self {
        let Self { targets, web, sampling, metrics, history, alerts, log, kubernetes } = self;
        Self {
            targets: if targets.is_empty() { below.targets } else { targets },
            web: Web {
                listen: web.listen.or(below.web.listen),
                config_file: web.config_file.or(below.web.config_file),
                external_url: web.external_url.or(below.web.external_url),
                telemetry_path: web.telemetry_path.or(below.web.telemetry_path),
                max_requests: web.max_requests.or(below.web.max_requests),
            },
            sampling: Sampling {
                interval: sampling.interval.or(below.sampling.interval),
                cpu: sampling.cpu.or(below.sampling.cpu),
                targets: sampling.targets.or(below.sampling.targets),
                forget_after: sampling.forget_after.or(below.sampling.forget_after),
                ebpf: sampling.ebpf.or(below.sampling.ebpf),
                exact: sampling.exact.or(below.sampling.exact),
                hooks: sampling.hooks.or(below.sampling.hooks),
                allocations: sampling.allocations.or(below.sampling.allocations),
                allocation_sample: sampling.allocation_sample.or(below.sampling.allocation_sample),
            },
            metrics: Metrics { sites: metrics.sites.or(below.metrics.sites) },
            history: History {
                path: history.path.or(below.history.path),
                keep: history.keep.or(below.history.keep),
                max_bytes: history.max_bytes.or(below.history.max_bytes),
            },
            alerts: alerts.over(below.alerts),
            log: Log { format: log.format.or(below.log.format), level: log.level.or(below.log.level) },
            kubernetes: kubernetes.over(below.kubernetes),
        }
    }

    /// What the environment says; `variable` is asked for each name. Lists are separated by commas.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let list = |name| -> Option<Vec<String>> {
            Some(variable(name)?.split(',').map(|part| part.trim().to_owned()).collect())
        };
        let mut targets = Vec::new();
        let mut add = |name, set: fn(&mut Target, String)| {
            for value in list(name).into_iter().flatten() {
                let mut target = Target::default();
                set(&mut target, value);
                targets.push(target);
            }
        };
        add("OBSERVER_EXE", |target, value| target.exe = Some(value));
        add("OBSERVER_COMM", |target, value| target.comm = Some(value));
        add("OBSERVER_CGROUP", |target, value| target.cgroup = Some(value));
        // A regular expression may hold commas.
        if let Some(cmdline) = variable("OBSERVER_CMDLINE") {
            targets.push(Target { cmdline: Some(cmdline), ..Target::default() });
        }
        Self {
            targets,
            web: Web {
                listen: list("OBSERVER_LISTEN"),
                config_file: variable("OBSERVER_WEB_CONFIG_FILE"),
                external_url: variable("OBSERVER_WEB_EXTERNAL_URL"),
                ..Web::default()
            },
            sampling: Sampling {
                interval: variable("OBSERVER_INTERVAL"),
                cpu: variable("OBSERVER_CPU"),
                ..Sampling::default()
            },
            history: History { path: variable("OBSERVER_HISTORY"), ..History::default() },
            alerts: Alerts {
                webhook: variable("OBSERVER_WEBHOOK").into_iter().map(Webhook::to).collect(),
                alertmanager: variable("OBSERVER_ALERTMANAGER").into_iter().map(Alertmanager::to).collect(),
                ..Alerts::default()
            },
            log: Log { format: variable("OBSERVER_LOG_FORMAT"), level: variable("OBSERVER_LOG_LEVEL") },
            kubernetes: Kubernetes::from_environment(&variable),
            ..Self::default()
        }
    }
}
