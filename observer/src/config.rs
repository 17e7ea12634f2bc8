//! What the daemon is to do: from flags over file over environment to a [`Config`] that cannot be invalid.
//!
//! Reads the file it is given; everything wrong with it is one line that says where and what is possible.
//! deploy/observer.toml has every key with its default.

mod alerts;
mod kubernetes;
mod raw;
pub(crate) mod units;
mod value;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use value::ConfigError;

pub use raw::{Alertmanager, Alerts, History, Kubernetes, Log, Metrics, Raw, Sampling, Target, Web, Webhook};

use crate::select::pods;
use crate::select::rules::Rule;
use crate::tell::alert;
use value::{duration, number, within, wrong};

/// A file that is longer is none of ours.
const MOST_BYTES: u64 = 1 << 20;

/// The whole of it.
#[derive(Clone, Debug)]
pub struct Config {
    pub rules: Arc<[Rule]>,
    pub listen: Vec<String>,
    /// `listen` was asked for, so that it goes before what systemd hands over.
    pub listen_is_asked: bool,
    pub web_config_file: Option<PathBuf>,
    /// Without a `/` at its end; empty where nobody said it.
    pub external_url: String,
    pub telemetry_path: String,
    pub max_requests: usize,
    pub interval: Duration,
    /// Of one core.
    pub cpu: f64,
    pub targets: usize,
    pub forget_after: Duration,
    pub ebpf: bool,
    pub exact: bool,
    /// When the hooks of waits and faults are attached.
    pub hooks: Hooks,
    /// Track allocations, one of so many bytes.
    pub allocations: Option<u64>,
    pub sites: usize,
    pub history: Option<Store>,
    /// What they link to is the daemon's to say.
    pub alerts: alert::Options,
    pub log: LogOptions,
    /// Whom to ask for the node's pods.
    pub pods: Option<pods::Options>,
}

/// History that is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub path: PathBuf,
    pub keep: Duration,
    pub max_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub json: bool,
    /// As `RUST_LOG` has it.
    pub level: Option<String>,
}

impl Config {
    /// `flags` over the file, if one is named, over `environment`.
    pub fn load(flags: Raw, file: Option<&Path>, environment: Raw) -> Result<Self, ConfigError> {
        let file = file.map(read).transpose()?.unwrap_or_default();
        Self::check(flags.over(file).over(environment))
    }

    pub fn check(raw: Raw) -> Result<Self, ConfigError> {
        let rules: Arc<[Rule]> = raw
            .targets
            .iter()
            .map(|target| target.rule().map_err(|error| wrong("target", error.to_string())))
            .collect::<Result<_, _>>()?;
        if rules.is_empty() {
            return Err(ConfigError::NoTarget);
        }
        let pods = kubernetes::pods(&raw.kubernetes)?;
        if let Some(rule) = rules.iter().find(|rule| pods.is_none() && rule.needs_pods()) {
            let message = format!("`{}` needs the list of pods: set kubernetes.pods", rule.words());
            return Err(wrong("target", message));
        }
        let interval = duration("sampling.interval", raw.sampling.interval.as_ref(), Duration::from_secs(2))?;
        within("sampling.interval", interval, Duration::from_millis(200), Duration::from_secs(300))?;
        let forget_after =
            duration("sampling.forget_after", raw.sampling.forget_after.as_ref(), Duration::from_secs(900))?;
        let cpu = raw.sampling.cpu.as_deref().map_or(Ok(0.02), units::percent);
        let cpu = cpu.map_err(|message| wrong("sampling.cpu", message))?;
        let targets = number("sampling.targets", raw.sampling.targets, 64, 1, 256)?;
        let sites = number("metrics.sites", raw.metrics.sites, 50, 1, 1000)?;
        let external_url = raw.web.external_url.unwrap_or_default();
        let external_url = external_url.trim_end_matches('/').to_owned();
        if !(external_url.is_empty()
            || external_url.starts_with("http://")
            || external_url.starts_with("https://"))
        {
            return Err(wrong("web.external_url", format!("`{external_url}` is no http or https address")));
        }
        let listen_is_asked = raw.web.listen.is_some();
        let listen = raw.web.listen.unwrap_or_else(|| vec!["127.0.0.1:9713".to_owned()]);
        if listen.is_empty() {
            return Err(wrong("web.listen", "an empty list: give at least one address".to_owned()));
        }
        Ok(Self {
            rules,
            listen,
            listen_is_asked,
            web_config_file: raw.web.config_file.map(PathBuf::from),
            external_url,
            telemetry_path: raw.web.telemetry_path.unwrap_or_else(|| "/metrics".to_owned()),
            max_requests: raw.web.max_requests.unwrap_or(40),
            interval,
            cpu,
            targets,
            forget_after,
            ebpf: raw.sampling.ebpf.unwrap_or(true),
            exact: raw.sampling.exact.unwrap_or(false),
            hooks: hooks(&raw.sampling)?,
            allocations: allocations(&raw.sampling)?,
            sites,
            history: store(&raw.history)?,
            alerts: alerts::options(&raw.alerts)?,
            log: log(&raw.log)?,
            pods,
        })
    }
}

/// Which hooks are attached when, in words: the configuration does not know the kernel's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// In windows where the machine passes them often.
    Windows,
    /// All the time.
    Always,
}

fn hooks(raw: &Sampling) -> Result<Hooks, ConfigError> {
    match raw.hooks.as_deref() {
        Some("windows") => Ok(Hooks::Windows),
        None | Some("always") => Ok(Hooks::Always),
        Some(other) => Err(wrong("sampling.hooks", format!("`{other}`; it may be `windows` or `always`"))),
    }
}

fn allocations(raw: &Sampling) -> Result<Option<u64>, ConfigError> {
    let sample = raw.allocation_sample.as_deref().map_or(Ok(512 << 10), units::sample_bytes);
    let sample = sample.map_err(|message| wrong("sampling.allocation_sample", message))?;
    let wanted = raw.allocations.unwrap_or(false);
    if wanted && raw.ebpf == Some(false) {
        return Err(wrong("sampling.allocations", "needs eBPF: leave sampling.ebpf on".to_owned()));
    }
    Ok(wanted.then_some(sample))
}

/// The file as it is written.
pub fn read(path: &Path) -> Result<Raw, ConfigError> {
    let shown = path.display().to_string();
    let unreadable = |source| ConfigError::Unreadable { path: shown.clone(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MOST_BYTES {
        return Err(ConfigError::Long { path: shown });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        ConfigError::Syntax { path: shown.clone(), line, message }
    })
}

fn store(raw: &History) -> Result<Option<Store>, ConfigError> {
    let keep = duration("history.keep", raw.keep.as_ref(), Duration::from_secs(7 * 86_400))?;
    let max_bytes = raw.max_bytes.as_deref().map_or(Ok(256 << 20), units::bytes);
    let max_bytes = max_bytes.map_err(|message| wrong("history.max_bytes", message))?;
    if max_bytes < 16 << 20 {
        return Err(wrong(
            "history.max_bytes",
            "less than 16 MiB leaves no room to turn round in".to_owned(),
        ));
    }
    Ok(raw.path.as_ref().map(|path| Store { path: PathBuf::from(path), keep, max_bytes }))
}

fn log(raw: &Log) -> Result<LogOptions, ConfigError> {
    let json = match raw.format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(wrong("log.format", format!("`{other}`: may be text or json"))),
    };
    Ok(LogOptions { json, level: raw.level.clone() })
}
