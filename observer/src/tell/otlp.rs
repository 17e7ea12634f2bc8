//! Profiles to an OpenTelemetry collector: OTLP over HTTP, protocol buffers, gzipped. Only with the feature `otlp`: the
//! specification still moves.
//!
//! Reads the board at an interval and posts what is blocked and what grew, each as a state. There is no queue to bound:
//! what could not be sent is not sent later, the next time sends what is then. After a failure the pauses grow. Costs a
//! thread; whoever hangs at the other end disturbs nobody. Set up by the environment, as every OpenTelemetry exporter
//! is: `OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT` (as it is) or `OTEL_EXPORTER_OTLP_ENDPOINT` (the path is added), and
//! `OTEL_EXPORTER_OTLP_HEADERS`.

mod message;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use ureq::Agent;

use crate::board::Board;
pub use message::request;

/// Where collectors take profiles, below their address.
const PATH: &str = "/v1development/profiles";
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts after many failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("{variable}: {value:?} is no address (as in http://127.0.0.1:4318)")]
    Endpoint { variable: &'static str, value: String },
    #[error("OTEL_EXPORTER_OTLP_HEADERS: expected name=value,name=value")]
    Headers,
    #[error("starting the thread that sends profiles: {0}")]
    Thread(#[from] io::Error),
}

pub struct Options {
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub interval: Duration,
}

impl Options {
    /// None where no endpoint is set.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, OtlpError> {
        let set = |name: &'static str| get(name).filter(|value| !value.trim().is_empty()).map(|v| (name, v));
        let own = set("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT");
        let url = match (own, set("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some((variable, value)), _) => address(variable, value)?,
            (None, Some((variable, value))) => {
                address(variable, value)?.trim_end_matches('/').to_owned() + PATH
            }
            (None, None) => return Ok(None),
        };
        let mut headers = Vec::new();
        if let Some((_, value)) = set("OTEL_EXPORTER_OTLP_HEADERS") {
            for header in value.split(',').filter(|header| !header.trim().is_empty()) {
                let (name, value) = header.split_once('=').ok_or(OtlpError::Headers)?;
                let (name, value) = (name.trim(), value.trim());
                let usable = axum::http::HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && axum::http::HeaderValue::from_str(value).is_ok();
                if !usable {
                    return Err(OtlpError::Headers);
                }
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(Some(Self { url, headers, interval: Duration::from_secs(60) }))
    }
}

fn address(variable: &'static str, value: String) -> Result<String, OtlpError> {
    let uri: Option<axum::http::Uri> = value.trim().parse().ok();
    let usable = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if usable { Ok(value.trim().to_owned()) } else { Err(OtlpError::Endpoint { variable, value }) }
}

/// What became of what was sent.
#[derive(Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub failed: AtomicU64,
}

/// Sends until it is dropped or stopped.
pub struct Exporter {
    stop: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
}

impl Exporter {
    pub fn start(options: Options, board: Arc<Board>) -> Result<Self, OtlpError> {
        let (stop, stopped) = mpsc::channel();
        let (ending, ended) = mpsc::channel::<()>();
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            let _ending = ending;
            run(&options, &board, &stopped, &counted);
        })?;
        Ok(Self { stop, ended, thread, counters })
    }

    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// A collector that hangs is left behind after `deadline`.
    pub fn stop(self, deadline: Duration) {
        drop(self.stop);
        if matches!(self.ended.recv_timeout(deadline), Err(RecvTimeoutError::Disconnected))
            && self.thread.join().is_err()
        {
            tracing::error!("the thread that sends profiles panicked");
        }
    }
}

fn run(options: &Options, board: &Board, stopped: &mpsc::Receiver<()>, counters: &Counters) {
    let agent: Agent = Agent::config_builder()
        // A redirect would take profiles to where nobody sent them.
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("observer/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut failures = 0u32;
    let mut pause = options.interval;
    loop {
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let began = Instant::now();
        match send(&agent, options, board) {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!("profiles reach the collector again");
                }
                failures = 0;
                counters.sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                // Once: it will be the same the next time.
                if failures == 0 {
                    tracing::warn!("profiles cannot be sent to the collector: {error}");
                }
                failures = failures.saturating_add(1);
                counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        let wanted = options.interval.saturating_mul(1 << failures.min(10));
        pause = wanted.min(LONGEST_PAUSE.max(options.interval)).saturating_sub(began.elapsed());
    }
}

fn send(agent: &Agent, options: &Options, board: &Board) -> Result<(), String> {
    let targets: Vec<_> = board.targets().into_iter().filter(|state| state.up).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let body = packed.write_all(&request(&targets).encode_to_vec()).and_then(|()| packed.finish());
    let body = body.map_err(|error| error.to_string())?;
    let mut post = agent.post(&options.url).content_type("application/x-protobuf");
    post = post.header("Content-Encoding", "gzip");
    for (name, value) in &options.headers {
        post = post.header(name, value);
    }
    let answer = post.send(body.as_slice()).map_err(|error| match error {
        // The address may hold a secret.
        ureq::Error::BadUri(_) => "bad address".to_owned(),
        other => other.to_string(),
    })?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answers {}", answer.status())) }
}
