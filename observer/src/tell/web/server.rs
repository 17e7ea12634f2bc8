//! The HTTP server: connections in, answers out, in bounded numbers and bounded time.
//!
//! Takes listeners that are bound already, so that an address that is taken is one line at the start. Runs on a thread
//! of its own ([`Server`]) or wherever [`serve`] is awaited. Speaks HTTP/1.1. Costs a thread, and a few KiB for each
//! connection.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Request};
use axum::middleware;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use tower_http::set_header::SetResponseHeaderLayer;

use super::auth::{Connection, Gate, admitted};
use super::limits::{Limits, Patient, bounded};
use super::routes::routes;
use super::shown::{Shown, TELEMETRY_PATH};
use super::web_config::{Watched, WebConfigError};

/// For a request's head to arrive, and for a connection to be idle.
const HEAD: Duration = Duration::from_secs(30);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
const PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nthis is an HTTPS server: begin the address with https://\n";
/// For answers that are under way when we stop.
const GRACE: Duration = Duration::from_secs(3);
/// Of a request's head, and of what is buffered for a slow reader beside the answer itself.
const BUFFER: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// After a connection could not be accepted, mostly for want of descriptors.
const BREATH: Duration = Duration::from_millis(200);

pub struct Options {
    /// Bound already: see [`listen`].
    pub listeners: Vec<TcpListener>,
    /// Where the metrics are: begins with `/`.
    pub telemetry_path: String,
    /// Requests answered at a time, 0 for no limit. More are told to come back.
    pub max_requests: usize,
    /// Connections open at a time. More wait to be accepted.
    pub max_connections: usize,
    /// TLS and passwords, in the exporters' usual format.
    pub web_config_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            telemetry_path: TELEMETRY_PATH.to_owned(),
            max_requests: 40,
            max_connections: 128,
            web_config_file: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}{remedy}")]
    Listen { address: String, source: io::Error, remedy: &'static str },
    #[error(
        "{address:?} is not an address to listen on (expected host:port, as in 127.0.0.1:9713, [::1]:9713 or :9713)"
    )]
    Address { address: String },
    #[error(
        "the telemetry path {0:?} must begin with / and be a path of plain letters that no other page has"
    )]
    TelemetryPath(String),
    #[error(transparent)]
    Config(#[from] WebConfigError),
    #[error("starting the web server: {0}")]
    Start(#[from] io::Error),
}

/// Binds `address`: `host:port`, or `:port` for all addresses of the machine.
pub fn listen(address: &str) -> Result<TcpListener, ServeError> {
    let wrong = || ServeError::Address { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let failed = |source: io::Error| ServeError::Listen {
        address: address.to_owned(),
        remedy: match source.kind() {
            io::ErrorKind::AddrInUse => "; is observer running already? choose another with --listen",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        },
        source,
    };
    if host.is_empty() {
        // Both families where the kernel has IPv6.
        return TcpListener::bind(("::", port))
            .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
            .map_err(failed);
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(wrong());
    }
    let addresses: Vec<SocketAddr> =
        (bare.unwrap_or(host), port).to_socket_addrs().map_err(failed)?.collect();
    TcpListener::bind(addresses.as_slice()).map_err(failed)
}

/// A server on a thread of its own.
pub struct Server {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    pub fn start(options: Options, shown: Arc<Shown>) -> Result<Self, ServeError> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Where passwords are checked, and pages and flame graphs drawn.
            .max_blocking_threads(4)
            .build()?;
        // What is wrong with the options is said before there is a thread.
        let prepared = {
            let _entered = runtime.enter();
            Prepared::new(options, shown, stopped)?
        };
        let thread = thread::Builder::new().name("web".to_owned()).spawn(move || {
            runtime.block_on(prepared.run());
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends what is under way, in bounded time.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the web server panicked");
        }
    }
}

/// Answers until `stop` says so, then ends what is under way in bounded time.
pub async fn serve(
    options: Options,
    shown: Arc<Shown>,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    Prepared::new(options, shown, stop)?.run().await;
    Ok(())
}

/// All that can be wrong has been looked at.
struct Prepared {
    listeners: Vec<tokio::net::TcpListener>,
    service: TowerToHyperService<Router>,
    config: Option<Arc<Watched>>,
    connections: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Prepared {
    fn new(options: Options, shown: Arc<Shown>, stop: watch::Receiver<bool>) -> Result<Self, ServeError> {
        if !is_free_path(&options.telemetry_path) {
            return Err(ServeError::TelemetryPath(options.telemetry_path));
        }
        let config = match &options.web_config_file {
            Some(path) => Some(Arc::new(Watched::open(path)?)),
            None => None,
        };
        let gate = Arc::new(Gate::new(&shown.external_url, config.clone()));
        let limits = Arc::new(Limits::new(options.max_requests, stop.clone()));
        let router = router(shown, &options.telemetry_path, limits, gate);
        let mut listeners = Vec::with_capacity(options.listeners.len());
        for listener in options.listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            announce(listener.local_addr()?, config.as_deref());
            listeners.push(listener);
        }
        Ok(Self {
            listeners,
            service: TowerToHyperService::new(router),
            config,
            connections: Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            stop,
        })
    }

    async fn run(self) {
        let Self { listeners, service, config, connections, mut stop } = self;
        let graceful = GracefulShutdown::new();
        let mut accepting = JoinSet::new();
        let (opened, mut incoming) = tokio::sync::mpsc::channel(1);
        for listener in listeners {
            accepting.spawn(accept(listener, Arc::clone(&connections), opened.clone()));
        }
        drop(opened);
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                // Whoever could stop us being gone is a stop too.
                _ = stop.wait_for(|stop| *stop) => break,
                Some((stream, local, permit)) = incoming.recv() => {
                    let (service, config, watcher) = (service.clone(), config.clone(), graceful.watcher());
                    open.spawn(async move {
                        greet(stream, local, config.as_ref(), service, watcher).await;
                        drop(permit);
                    });
                }
                Some(_) = open.join_next() => {}
            }
        }
        // The port is free from here on.
        accepting.shutdown().await;
        drop(incoming);
        if timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::debug!("{} connections cut off at the end", open.len());
        }
        open.shutdown().await;
    }
}

type Opened = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// Hands on each connection, as long as there is room for one more.
async fn accept(
    listener: tokio::net::TcpListener,
    connections: Arc<Semaphore>,
    opened: tokio::sync::mpsc::Sender<Opened>,
) {
    let mut failing = false;
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            let local = stream.local_addr()?;
            Ok((stream, local))
        });
        match accepted {
            Ok((stream, local)) => {
                failing = false;
                if opened.send((stream, local, permit)).await.is_err() {
                    return;
                }
            }
            // Of that connection alone.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::NotConnected
                ) => {}
            Err(error) => {
                if !failing {
                    tracing::warn!("the web server cannot accept a connection: {error}");
                }
                failing = true;
                sleep(BREATH).await;
            }
        }
    }
}

/// Agrees on TLS where that is asked for.
async fn greet(
    stream: TcpStream,
    local: SocketAddr,
    config: Option<&Arc<Watched>>,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
) {
    let tls = match config {
        Some(config) => config.current().await.tls.clone(),
        None => None,
    };
    let Some(tls) = tls else {
        return converse(Patient::new(stream), Connection { local, tls: false }, service, watcher).await;
    };
    let agreed = timeout(HANDSHAKE, async {
        if speaks_plainly(&stream).await? {
            // Read first: a connection closed with something unread is reset, and the answer with it.
            let _ = stream.try_read(&mut [0; BUFFER]);
            stream.try_write(PLAIN)?;
            return Err(io::Error::other("no TLS"));
        }
        TlsAcceptor::from(tls).accept(Patient::new(stream)).await
    });
    match agreed.await {
        Ok(Ok(stream)) => converse(stream, Connection { local, tls: true }, service, watcher).await,
        Ok(Err(error)) => tracing::debug!("TLS handshake on {local}: {error}"),
        Err(_) => tracing::debug!("TLS handshake on {local}: timed out"),
    }
}

/// The first byte is that of a method: who came forgot the s of https.
async fn speaks_plainly(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    Ok(stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase())
}

/// One connection to its end.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    connection: Connection,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection);
        service.call(request)
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(conversation).await {
        tracing::debug!("connection to {}: {error}", connection.local);
    }
}

/// Everything around the routes, the outermost last.
fn router(shown: Arc<Shown>, telemetry_path: &str, limits: Arc<Limits>, gate: Arc<Gate>) -> Router {
    let worth = DefaultPredicate::new()
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/gzip"));
    let strict = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    routes(shown, telemetry_path)
        .layer(middleware::from_fn_with_state(limits, bounded))
        .layer(CompressionLayer::new().compress_when(worth))
        .layer(middleware::from_fn_with_state(gate, admitted))
        // A page that needs more says so itself.
        .layer(strict(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .layer(strict(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(strict(X_FRAME_OPTIONS, "sameorigin"))
        .layer(strict(REFERRER_POLICY, "no-referrer"))
        .layer(strict(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
}

/// A path that the router takes as it is, and that hides none of ours.
fn is_free_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    let taken = ["/healthz", "/readyz"];
    path.len() > 1
        && path.len() <= 200
        && path.starts_with('/')
        && path.chars().all(plain)
        && !taken.contains(&path)
        && !["/api/", "/targets/"].iter().any(|taken| path.starts_with(taken))
}

fn announce(address: SocketAddr, config: Option<&Watched>) {
    let config = config.map(Watched::in_force);
    let secure = config.as_ref().is_some_and(|config| config.tls.is_some());
    tracing::info!("listening on {}://{address}", if secure { "https" } else { "http" });
    let guarded = config.as_ref().is_some_and(|config| config.keeps_strangers_out());
    if !address.ip().to_canonical().is_loopback() && !guarded {
        tracing::warn!(
            "everybody who reaches {address} can read what is observed: ask for a password or a certificate with \
             --web.config.file, or listen on 127.0.0.1"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telemetry_paths() {
        for free in ["/metrics", "/observer/metrics", "/m"] {
            assert!(is_free_path(free), "{free}");
        }
        for other in ["", "/", "metrics", "/{a}", "/a b", "/healthz", "/api/v1/targets", "/*x", "/a?b", "/ä"]
        {
            assert!(!is_free_path(other), "{other}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_had_is_one_line() {
        let taken = listen("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let said = listen(&address).unwrap_err().to_string();
        assert!(said.contains(&address) && said.contains("--listen"), "{said}");
        for wrong in ["", "localhost", "127.0.0.1:99999", "::1:80", "127.0.0.1:http"] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
        let other = listen("192.0.2.1:0").unwrap_err().to_string();
        assert!(other.contains("no interface"), "{other}");
    }
}
