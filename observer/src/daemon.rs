//! The daemon: who is started and ended in which order, and the loop that joins them.
//!
//! One thread a target, one that discovers, one that drains the kernel, one that serves, one for each receiver of
//! alerts, one that writes to disk. None waits for another: they meet at the board.

mod drain;
mod privilege;
mod sampler;
mod supervisor;

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::board::Board;
use crate::config::{self, Config};
use crate::kernel::{Hooks, KernelOptions, SharedProbes, Windows, heap};
use crate::observe::{KernelSource, check, degrade, own_memory};
use crate::select::pods::Pods;
use crate::select::scan::Discovery;
use crate::systemd;
use crate::tell::alert::{self, Alerts};
use crate::tell::metrics::{self, Metrics};
use crate::tell::web::Shown;
use crate::tell::web::server::{self, Server};
use crate::tell::web::web_config::asks_for_tls;
use crate::timeline::store::{self, Store};
use drain::{Drain, Routes};
use sampler::{Pace, Shared, unix_now};
use supervisor::{Limits, Supervisor};

/// Followers are looked after, and what was discovered is taken, this often.
const TICK: Duration = Duration::from_millis(500);
/// What was freed is given back to the kernel, at the latest, this often.
const TRIM: Duration = Duration::from_secs(60);
/// And so long after targets were attached to, which needs the most.
const TRIM_AFTER_ATTACH: Duration = Duration::from_secs(6);
/// The board is looked at for alerts this often.
const ALERT_TICK: Duration = Duration::from_secs(2);
/// For alerts that are still to be told when we end, and for history to be written.
const TELL_THE_LAST: Duration = Duration::from_secs(3);
const WRITE_THE_LAST: Duration = Duration::from_secs(3);
/// Without a look at the processes of the machine for so long, it is said.
const LOOK_HANGS: Duration = Duration::from_secs(60);
/// Followers have this long to end; a process that hangs keeps its follower for ever.
const FOLLOWERS_END: Duration = Duration::from_secs(3);

/// Runs until it is told to end. `reload` reads the configuration anew.
pub(crate) fn run(config: &Config, reload: &dyn Fn() -> Result<Config>) -> Result<()> {
    heap::share_arenas();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    let (mut signals, mut daemon) = {
        let _entered = runtime.enter();
        // Before anything is started: a signal that comes early is not lost.
        let signals = Signals::new()?;
        // Not yet within the loop: what has an event loop of its own and fails to start can be dropped only outside.
        (signals, Daemon::start(config)?)
    };
    runtime.block_on(async {
        daemon.serve(&mut signals, reload).await;
        daemon.stop(&mut signals).await;
    });
    // Who is told twice to end does not wait for what is still ending.
    runtime.shutdown_background();
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind, name| signal(kind).with_context(|| format!("waiting for {name}"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt(), "SIGINT")?,
            terminate: on(SignalKind::terminate(), "SIGTERM")?,
            hang_up: on(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Everything that runs, in the order in which it was started.
struct Daemon {
    board: Arc<Board>,
    external_url: String,
    alerts: Arc<Alerts>,
    common: Arc<Shared>,
    metrics: Arc<Metrics>,
    server: Server,
    #[cfg(feature = "otlp")]
    otlp: Option<crate::tell::otlp::Exporter>,
    drain: Option<Drain>,
    discovery: Discovery,
    roster: Supervisor,
    rules: Arc<[crate::select::rules::Rule]>,
    /// Of `rules`: looks by older ones do not count.
    edition: u64,
    looked: Instant,
    trim_at: Instant,
    /// As it was started.
    config: Config,
}

impl Daemon {
    fn start(config: &Config) -> Result<Self> {
        // What can fail for want of a free port or a right goes first, so that it fails in one line and at once.
        let listeners = listeners(config)?;
        let addresses: Vec<String> =
            listeners.iter().filter_map(|l| l.local_addr().ok()).map(|a| a.to_string()).collect();
        let external_url = external_url(config, &listeners);
        for finding in check::missing(config.ebpf) {
            tracing::warn!("{} is {} ({})", finding.what, finding.found, finding.remedy);
        }
        // Said before it is used up: whoever is killed says nothing.
        if let Some(tight) = own_memory::tight(own_memory::limit()) {
            tracing::warn!("{} ({})", tight.reason, tight.remedy);
        }
        let pods = config.pods.clone().map_or_else(|| Ok(Pods::none()), crate::select::pods::ask)?;
        // The one thing that takes more rights than what follows.
        let kernel = load_kernel(config);
        privilege::drop_unneeded();
        let board = Arc::new(Board::default());
        let metrics = Arc::new(Metrics::with_options(Arc::clone(&board), &metrics_options(config))?);
        let alerts = Arc::new(Alerts::new(alert_options(config, &external_url))?);
        metrics.watch_alerts(alerts.counters());
        let store = config.history.as_ref().map(open_store).transpose()?;
        let shown = Arc::new(Shown {
            board: Arc::clone(&board),
            metrics: Arc::clone(&metrics),
            alerts: Arc::clone(&alerts),
            external_url: external_url.clone(),
        });
        let options = server::Options {
            listeners,
            telemetry_path: config.telemetry_path.clone(),
            max_requests: config.max_requests,
            web_config_file: config.web_config_file.clone(),
            ..server::Options::default()
        };
        let server = Server::start(options, shown)?;
        #[cfg(feature = "otlp")]
        let otlp = {
            use crate::tell::otlp::{Exporter, Options};
            let options = Options::from_environment(|name| std::env::var(name).ok())?;
            options.map(|options| Exporter::start(options, Arc::clone(&board))).transpose()?
        };

        let routes = Arc::new(Routes::default());
        let drain = match &kernel {
            KernelSource::Shared(Ok(kernel)) => Some(
                Drain::start(Arc::clone(kernel), Arc::clone(&routes), Arc::clone(&board))
                    .context("starting the thread that drains the kernel's buffers")?,
            ),
            _ => None,
        };
        let common = Arc::new(Shared {
            allocations: config.allocations,
            board: Arc::clone(&board),
            metrics: Arc::clone(&metrics),
            kernel,
            pods: Arc::clone(&pods),
            store,
            pace: Pace::default(),
        });
        let roster = Supervisor::new(Arc::clone(&common), routes, limits(config));
        let discovery = Discovery::start(Arc::clone(&config.rules), pods)
            .context("starting the thread that discovers")?;
        board.set_ready(true);
        systemd::ready(&format!("serving on {}", addresses.join(", ")));
        Ok(Self {
            board,
            external_url,
            alerts,
            common,
            metrics,
            server,
            #[cfg(feature = "otlp")]
            otlp,
            drain,
            discovery,
            roster,
            rules: Arc::clone(&config.rules),
            edition: 0,
            looked: Instant::now(),
            trim_at: Instant::now() + TRIM,
            config: config.clone(),
        })
    }

    async fn serve(&mut self, signals: &mut Signals, reload: &dyn Fn() -> Result<Config>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut looks = interval(ALERT_TICK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Where nobody watches, nobody listens either.
        let mut alive = interval(systemd::watchdog().unwrap_or(Duration::from_secs(3600)));
        loop {
            tokio::select! {
                biased;
                _ = signals.interrupt.recv() => return,
                _ = signals.terminate.recv() => return,
                _ = signals.hang_up.recv() => self.reload(reload),
                _ = alive.tick() => systemd::alive(),
                _ = ticks.tick() => self.tick(),
                _ = looks.tick() => self.look_for_alerts(),
            }
        }
    }

    fn tick(&mut self) {
        self.roster.reap();
        if let Some(look) = self.discovery.look() {
            self.looked = Instant::now();
            if look.edition == self.edition && self.roster.update(&look, &self.rules) {
                self.trim_at = self.trim_at.min(Instant::now() + TRIM_AFTER_ATTACH);
            }
        } else if self.looked.elapsed() > LOOK_HANGS {
            self.looked = Instant::now();
            tracing::warn!(
                "looking for processes hangs, as it does at one in uninterruptible sleep: new ones are not found"
            );
        }
        if Instant::now() >= self.trim_at {
            heap::trim();
            self.trim_at = Instant::now() + TRIM;
        }
    }

    fn look_for_alerts(&self) {
        self.alerts.tick(unix_now(), &self.board);
        if let Some(store) = &self.common.store {
            self.board.lose(&store.take_losses());
        }
    }

    /// What cannot be changed while it runs is said; the rest is.
    fn reload(&mut self, reload: &dyn Fn() -> Result<Config>) {
        systemd::reloading();
        match reload() {
            Ok(config) => {
                for key in fixed(&self.config).iter().zip(fixed(&config)).filter(|(was, is)| **was != *is) {
                    tracing::warn!("{} changes only when observer is started anew", key.1.0);
                }
                self.rules = Arc::clone(&config.rules);
                self.edition += 1;
                self.discovery.set_rules(Arc::clone(&config.rules));
                self.roster.set_limits(limits(&config));
                self.metrics.set_options(&metrics_options(&config));
                if let Err(error) = self.alerts.reload(alert_options(&config, &self.external_url)) {
                    tracing::error!("alerts stay as they were: {error}");
                }
                tracing::info!(rules = self.rules.len(), "configuration read anew");
            }
            Err(error) => {
                tracing::error!(
                    "the configuration stays as it was: {}",
                    crate::error_line::error_line(&error)
                );
            }
        }
        systemd::reloaded();
    }

    /// Those who ask first are told first: a load balancer, then the followers, then whoever still reads.
    async fn stop(self, signals: &mut Signals) {
        tracing::info!("ending");
        systemd::stopping();
        self.board.set_ready(false);
        let ended = tokio::task::spawn_blocking(move || {
            let left_behind = self.roster.stop(Instant::now() + FOLLOWERS_END);
            if left_behind > 0 {
                tracing::warn!(targets = left_behind, "reading some processes hangs: left behind");
            }
            drop(self.discovery);
            self.alerts.tick(unix_now(), &self.board);
            self.alerts.stop(TELL_THE_LAST);
            if let Some(drain) = self.drain {
                drain.stop();
            }
            // Followers that hang share it with us for ever: then what it holds is written, and the rest is the
            // kernel's to close.
            let written = match Arc::try_unwrap(self.common).map(|common| common.store) {
                Ok(store) => store.is_none_or(|store| store.close(WRITE_THE_LAST)),
                Err(common) => common.store.as_ref().is_none_or(|store| store.flush(WRITE_THE_LAST)),
            };
            if !written {
                tracing::warn!("history: what came last may not be on disk");
            }
            #[cfg(feature = "otlp")]
            if let Some(otlp) = self.otlp {
                otlp.stop(Duration::from_secs(1));
            }
            self.server.stop();
        });
        tokio::select! {
            _ = ended => {}
            () = signals.end() => tracing::warn!("told to end again: at once"),
        }
    }
}

/// What systemd opened for us, unless addresses were asked for.
fn listeners(config: &Config) -> Result<Vec<TcpListener>> {
    let passed = systemd::listeners()?;
    if !passed.is_empty() && !config.listen_is_asked {
        return Ok(passed);
    }
    Ok(config.listen.iter().map(|address| server::listen(address)).collect::<Result<_, _>>()?)
}

/// As it is configured, else where we listen; an address that stands for all of the machine's is none to go to.
fn external_url(config: &Config, listeners: &[TcpListener]) -> String {
    if !config.external_url.is_empty() {
        return config.external_url.clone();
    }
    let Some(address) = listeners.first().and_then(|listener| listener.local_addr().ok()) else {
        return String::new();
    };
    let host = match address.ip() {
        ip if ip.is_unspecified() => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned()),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let secure = config.web_config_file.as_deref().is_some_and(asks_for_tls);
    format!("{}://{host}:{}", if secure { "https" } else { "http" }, address.port())
}

fn alert_options(config: &Config, external_url: &str) -> alert::Options {
    alert::Options { external_url: external_url.to_owned(), ..config.alerts.clone() }
}

fn open_store(asked: &config::Store) -> Result<Store> {
    let limits = store::Limits { max_bytes: asked.max_bytes, keep: asked.keep };
    Ok(Store::open(&asked.path, limits)?)
}

fn metrics_options(config: &Config) -> metrics::Options {
    metrics::Options { sites: config.sites }
}

/// What only a start can set.
fn fixed(config: &Config) -> [(&'static str, String); 9] {
    [
        ("web.listen", config.listen.join(",")),
        ("web.config_file", format!("{:?}", config.web_config_file)),
        ("web.external_url", config.external_url.clone()),
        ("web.telemetry_path", config.telemetry_path.clone()),
        ("web.max_requests", config.max_requests.to_string()),
        (
            "sampling.ebpf, sampling.exact or sampling.hooks",
            format!("{} {} {:?}", config.ebpf, config.exact, config.hooks),
        ),
        ("sampling.allocations or sampling.allocation_sample", format!("{:?}", config.allocations)),
        ("history", format!("{:?}", config.history)),
        ("kubernetes", format!("{:?}", config.pods)),
    ]
}

fn limits(config: &Config) -> Limits {
    Limits {
        targets: config.targets,
        forget_after: config.forget_after,
        interval: config.interval,
        cpu: config.cpu,
    }
}

fn load_kernel(config: &Config) -> KernelSource {
    if !config.ebpf {
        return KernelSource::Off;
    }
    let hooks = match config.hooks {
        config::Hooks::Windows => Hooks::Windows(Windows::default()),
        config::Hooks::Always => Hooks::Always,
    };
    let options = KernelOptions {
        exact: config.exact,
        allocations: config.allocations,
        hooks,
        ..KernelOptions::default()
    };
    let loaded = SharedProbes::load(&options).map_err(|error| degrade::kernel(&error));
    if let Err(degraded) = &loaded {
        tracing::warn!("{} ({})", degraded.reason, degraded.remedy);
    }
    KernelSource::Shared(loaded)
}
