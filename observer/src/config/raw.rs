//! What the configuration file, the environment and the flags may say, before it is checked: everything is optional,
//! and each of the three is laid over the one below it.

use serde::Deserialize;

use crate::daemon::rules::Spec;

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
    pub log: Log,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    pub name: Option<String>,
    pub pid: Option<u32>,
    pub exe: Option<String>,
    pub comm: Option<String>,
    pub cmdline: Option<String>,
    pub cgroup: Option<String>,
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
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub sites: Option<usize>,
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
pub struct Log {
    pub format: Option<String>,
    pub level: Option<String>,
}

impl Target {
    pub fn spec(&self) -> Spec {
        let Self { name, pid, exe, comm, cmdline, cgroup } = self.clone();
        Spec { name, pid, exe, comm, cmdline, cgroup }
    }
}

impl Raw {
    /// What this one does not say, the one below does. A list replaces the list below as a whole.
    pub fn over(self, below: Self) -> Self {
        let Self { targets, web, sampling, metrics, history, log } = self;
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
            },
            metrics: Metrics { sites: metrics.sites.or(below.metrics.sites) },
            history: History {
                path: history.path.or(below.history.path),
                keep: history.keep.or(below.history.keep),
                max_bytes: history.max_bytes.or(below.history.max_bytes),
            },
            log: Log { format: log.format.or(below.log.format), level: log.level.or(below.log.level) },
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
            log: Log { format: variable("OBSERVER_LOG_FORMAT"), level: variable("OBSERVER_LOG_LEVEL") },
            ..Self::default()
        }
    }
}
