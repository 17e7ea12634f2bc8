//! `observer run`: the daemon. Flags, and where they lie over file and environment.

use std::path::PathBuf;

use anyhow::Result;

use crate::config::{Alertmanager, Config, Raw, Target, Webhook};
use crate::daemon;

use super::Usage;

#[derive(clap::Args)]
pub struct Arguments {
    /// Observe the process with this pid
    #[arg(long, value_name = "PID", help_heading = "Targets (each may be repeated)")]
    pid: Vec<u32>,
    /// Observe processes that run this: a path, a file name, or a glob
    #[arg(long, value_name = "GLOB", help_heading = "Targets (each may be repeated)")]
    exe: Vec<String>,
    /// Observe processes that the kernel calls this
    #[arg(long, value_name = "NAME", help_heading = "Targets (each may be repeated)")]
    comm: Vec<String>,
    /// Observe processes whose command line matches
    #[arg(long, value_name = "REGEX", help_heading = "Targets (each may be repeated)")]
    cmdline: Vec<String>,
    /// Observe processes in these cgroups
    #[arg(long, value_name = "GLOB", help_heading = "Targets (each may be repeated)")]
    cgroup: Vec<String>,
    /// Read this configuration; SIGHUP reads it anew
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve pages and metrics here [default: 127.0.0.1:9713]
    #[arg(long, visible_alias = "web.listen-address", value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// TLS and basic auth, in the format that Prometheus exporters share
    #[arg(long = "web.config.file", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    web_config_file: Option<String>,
    /// Where browsers reach this server, for links in alerts
    #[arg(long = "web.external-url", value_name = "URL")]
    external_url: Option<String>,
    /// Serve the metrics under this path [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH")]
    telemetry_path: Option<String>,
    /// Answer so many requests at a time [default: 40]
    #[arg(long = "web.max-requests", value_name = "N")]
    max_requests: Option<usize>,
    /// How often to look at each target [default: 2s]
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
    /// Keep history in this file, over restarts
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    history: Option<String>,
    /// Tell alerts to this address, as JSON; more and other forms by --config
    #[arg(long, value_name = "URL")]
    webhook: Vec<String>,
    /// Tell alerts to this Alertmanager
    #[arg(long, value_name = "URL")]
    alertmanager: Vec<String>,
    /// How to log
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// Name what is allocated and not freed. Touches every target: breakpoints in its allocator's code, some 1 µs each
    /// call of it; the kernel takes them out at the end
    #[arg(long, conflicts_with = "no_ebpf")]
    allocations: bool,
    /// Sample one allocation in so many bytes [default: 512KiB]
    #[arg(long, value_name = "BYTES")]
    allocation_sample: Option<String>,
    /// Do not load eBPF, also where it works
    #[arg(long)]
    no_ebpf: bool,
    /// Only check the configuration, and say what it means
    #[arg(long)]
    check: bool,
}

impl Arguments {
    fn raw(&self) -> Raw {
        let mut targets = Vec::new();
        targets.extend(self.pid.iter().map(|pid| Target { pid: Some(*pid), ..Target::default() }));
        let of = |values: &[String], set: fn(&mut Target, String)| {
            let target = |value: &String| {
                let mut target = Target::default();
                set(&mut target, value.clone());
                target
            };
            values.iter().map(target).collect::<Vec<_>>()
        };
        targets.extend(of(&self.exe, |target, value| target.exe = Some(value)));
        targets.extend(of(&self.comm, |target, value| target.comm = Some(value)));
        targets.extend(of(&self.cmdline, |target, value| target.cmdline = Some(value)));
        targets.extend(of(&self.cgroup, |target, value| target.cgroup = Some(value)));
        let mut raw = Raw { targets, ..Raw::default() };
        raw.web.listen = (!self.listen.is_empty()).then(|| self.listen.clone());
        raw.web.config_file.clone_from(&self.web_config_file);
        raw.web.external_url.clone_from(&self.external_url);
        raw.web.telemetry_path.clone_from(&self.telemetry_path);
        raw.web.max_requests = self.max_requests;
        raw.sampling.interval.clone_from(&self.interval);
        raw.sampling.ebpf = self.no_ebpf.then_some(false);
        raw.sampling.allocations = self.allocations.then_some(true);
        raw.sampling.allocation_sample.clone_from(&self.allocation_sample);
        raw.history.path.clone_from(&self.history);
        raw.alerts.webhook = self.webhook.iter().cloned().map(Webhook::to).collect();
        raw.alerts.alertmanager = self.alertmanager.iter().cloned().map(Alertmanager::to).collect();
        raw.log.format.clone_from(&self.log_format);
        raw
    }

    /// The configuration as it is now.
    pub fn load(&self) -> Result<Config> {
        let environment =
            Raw::from_environment(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        let file = self.config.clone().or_else(|| std::env::var_os("OBSERVER_CONFIG").map(PathBuf::from));
        Ok(Config::load(self.raw(), file.as_deref(), environment)
            .map_err(|error| Usage(error.to_string()))?)
    }
}

pub fn run(arguments: &Arguments, config: &Config) -> Result<std::process::ExitCode> {
    if arguments.check {
        check(config);
    } else {
        daemon::run(config, &|| arguments.load())?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}

/// A line for each thing that somebody may have meant otherwise.
#[expect(clippy::print_stdout, reason = "this is what was asked for")]
fn check(config: &Config) {
    for rule in config.rules.iter() {
        let name = rule.name.as_ref().map_or(String::new(), |name| format!(", called {name}"));
        println!("target    {}{name}", rule.words());
    }
    println!("listen    {}", config.listen.join(", "));
    println!(
        "sampling  every {:?}, at most {:.3} of one core, {} targets",
        config.interval, config.cpu, config.targets
    );
    if let Some(pods) = &config.pods {
        println!("pods      by {}, every {:?}", pods.url, pods.every);
    }
    let told: Vec<&str> = config.alerts.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
    println!("alerts    {}", told.join(", "));
    match &config.history {
        Some(store) => println!(
            "history   {} for {:?}, at most {} bytes",
            store.path.display(),
            store.keep,
            store.max_bytes
        ),
        None => println!("history   in memory"),
    }
}
