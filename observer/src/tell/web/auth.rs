//! Who may ask: hosts by name, users by password, and how often.
//!
//! On loopback without TLS any web page that a browser on this machine has open could reach us under a name of its own
//! that resolves to 127.0.0.1 (DNS rebinding), and would be same-origin. So where no password is asked for, a request
//! over a loopback address must name us by an address, as `localhost`, by this machine's name or by the host of
//! `--web.external-url`. Nothing reads across origins: no CORS header is ever sent.
//!
//! Passwords are bcrypt hashes, which take long on purpose: they are checked one at a time, away from the thread that
//! answers, and those that were right are remembered as a salted digest.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::crypto::{hash::Hash, ring};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::refusal::refusal;
use super::web_config::{Rate, Watched, WebConfig};

/// Right passwords that are remembered.
const MOST_REMEMBERED: usize = 100;
/// Passwords that wait to be checked.
const MOST_WAITING: usize = 16;

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    /// Our end of it.
    pub(crate) local: SocketAddr,
    pub(crate) tls: bool,
}

/// Whom we answer.
pub(crate) struct Gate {
    /// Names of ours beside `localhost`, in lower case.
    names: Vec<String>,
    config: Option<Arc<Watched>>,
    passwords: Passwords,
    bucket: Mutex<Bucket>,
}

impl Gate {
    pub(crate) fn new(external_url: &str, config: Option<Arc<Watched>>) -> Self {
        let mut names = Vec::new();
        if let Some((_, rest)) = external_url.split_once("://") {
            names.push(host(rest.split('/').next().unwrap_or_default()).to_ascii_lowercase());
        }
        if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
            names.push(name.trim().to_ascii_lowercase());
        }
        names.retain(|name| !name.is_empty());
        Self { names, config, passwords: Passwords::default(), bucket: Mutex::default() }
    }

    /// Whether a page of somebody else's could not have this as its host.
    fn is_ours(&self, asked: &str) -> bool {
        let asked = host(asked).trim_end_matches('.').to_ascii_lowercase();
        let address = asked.strip_prefix('[').and_then(|asked| asked.strip_suffix(']')).unwrap_or(&asked);
        address.parse::<IpAddr>().is_ok()
            || asked == "localhost"
            || asked.ends_with(".localhost")
            || self.names.contains(&asked)
    }
}

/// Without the port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

pub(crate) async fn admitted(
    State(gate): State<Arc<Gate>>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let Some(config) = &gate.config else {
        return match gate.misnamed(&path, &connection, request.headers()) {
            Some(refused) => refused,
            None => next.run(request).await,
        };
    };
    let config = config.current().await;
    let mut answer = match gate.refuse(&path, &connection, &config, request.headers()).await {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    for (name, value) in &config.headers {
        answer.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    answer
}

impl Gate {
    fn misnamed(&self, path: &str, connection: &Connection, headers: &HeaderMap) -> Option<Response> {
        // No browser leaves it out.
        let asked = headers.get(HOST)?;
        let ours = connection.tls
            || !connection.local.ip().to_canonical().is_loopback()
            || asked.to_str().is_ok_and(|asked| self.is_ours(asked));
        (!ours).then(|| {
            let remedy = "this server is not known by that host name: use localhost or an address, or name it with \
                          --web.external-url";
            refusal(path, StatusCode::MISDIRECTED_REQUEST, remedy)
        })
    }

    async fn refuse(
        &self,
        path: &str,
        connection: &Connection,
        config: &Arc<WebConfig>,
        headers: &HeaderMap,
    ) -> Option<Response> {
        if let Some(rate) = config.rate
            && !self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(rate, Instant::now())
        {
            let said = "more requests than rate_limit of the web config allows";
            return Some(later(refusal(path, StatusCode::TOO_MANY_REQUESTS, said)));
        }
        if config.users.is_empty() {
            return self.misnamed(path, connection, headers);
        }
        if let Some((user, password)) = headers.get(AUTHORIZATION).and_then(credentials) {
            match self.passwords.check(config, user, password).await {
                Checked::Right => return None,
                Checked::Wrong => {}
                Checked::Busy => {
                    let said = "too many passwords wait to be checked";
                    return Some(later(refusal(path, StatusCode::SERVICE_UNAVAILABLE, said)));
                }
            }
        }
        let mut answer = refusal(path, StatusCode::UNAUTHORIZED, "user and password are needed");
        let challenge = HeaderValue::from_static("Basic realm=\"observer\", charset=\"UTF-8\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(answer)
    }
}

fn later(mut answer: Response) -> Response {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// `Basic` and base64 of `user:password`.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at_checked(colon)?;
    Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
}

enum Checked {
    Right,
    Wrong,
    Busy,
}

/// Checks passwords, and remembers those that were right.
struct Passwords {
    right: Mutex<HashSet<Vec<u8>>>,
    salt: [u8; 32],
    waiting: Arc<Semaphore>,
    checking: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let mut salt = [0; 32];
        // Without it a digest in a core dump is easier to guess, nothing more.
        let _ = ring::default_provider().secure_random.fill(&mut salt);
        Self {
            right: Mutex::default(),
            salt,
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            checking: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Passwords {
    async fn check(&self, config: &WebConfig, user: String, password: Vec<u8>) -> Checked {
        let known = config.users.get(&user);
        // A user there is none of takes as long as one there is.
        let stored = known.cloned().unwrap_or_else(|| stranger(config));
        let digest = self.digest(&[user.as_bytes(), stored.as_bytes(), &password]);
        if known.is_some() && self.right().contains(&digest) {
            return Checked::Right;
        }
        let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else { return Checked::Busy };
        let Ok(checking) = Arc::clone(&self.checking).acquire_owned().await else { return Checked::Busy };
        let verified = tokio::task::spawn_blocking(move || {
            // Held here: who goes away before the end does not make room for the next.
            let _held = (waiting, checking);
            bcrypt::verify(password, &stored)
        })
        .await;
        if known.is_none() || !matches!(verified, Ok(Ok(true))) {
            return Checked::Wrong;
        }
        let mut right = self.right();
        if right.len() >= MOST_REMEMBERED {
            right.clear();
        }
        right.insert(digest);
        Checked::Right
    }

    /// The stored hash is part of it: a password that was changed is checked anew.
    fn digest(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = sha256().start();
        hash.update(&self.salt);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finish().as_ref().to_vec()
    }

    fn right(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sha256() -> &'static dyn Hash {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    match suite {
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    }
}

/// The hash of no password, of the same cost as those there are.
fn stranger(config: &WebConfig) -> String {
    let parts = config.users.values().next().and_then(|hash| hash.parse::<bcrypt::HashParts>().ok());
    let cost = parts.map_or(10, |parts| parts.get_cost());
    format!("$2b${cost:02}$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi")
}

/// Requests that may come now: one more each interval, up to the burst.
#[derive(Default)]
struct Bucket {
    taken: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let since = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.taken = (self.taken - since / rate.interval.as_secs_f64()).max(0.0);
        let room = self.taken + 1.0 <= f64::from(rate.burst);
        if room {
            self.taken += 1.0;
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours() {
        let gate = Gate::new("https://Observer.example.com:8443/base", None);
        for ours in [
            "localhost",
            "LOCALHOST:9713",
            "a.localhost",
            "127.0.0.1",
            "127.0.0.1:9713",
            "[::1]:9713",
            "[::1]",
            "10.1.2.3:80",
            "observer.example.com",
            "observer.example.com.:9713",
        ] {
            assert!(gate.is_ours(ours), "{ours}");
        }
        for other in
            ["evil.example", "127.0.0.1.evil.example:9713", "localhost.evil.example", "", ":", "[::1", "a:b"]
        {
            assert!(!gate.is_ours(other), "{other}");
        }
    }

    #[test]
    fn a_burst_and_then_one_each_interval() {
        let rate = Rate { interval: std::time::Duration::from_secs(2), burst: 3 };
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let at = |seconds: u64| start + std::time::Duration::from_secs(seconds);
        assert_eq!(
            [0, 0, 0, 0, 1, 2, 3, 4, 100].map(|s| bucket.take(rate, at(s))),
            [true, true, true, false, false, true, false, true, true]
        );
    }

    #[test]
    fn credentials_are_total() {
        let read = |text: &str| HeaderValue::from_str(text).ok().as_ref().and_then(credentials);
        assert_eq!(read("Basic YWxpY2U6YTpi"), Some(("alice".to_owned(), b"a:b".to_vec())));
        assert_eq!(read("basic YWxpY2U6"), Some(("alice".to_owned(), Vec::new())));
        for wrong in
            ["", "Basic", "Basic ", "Bearer YWxpY2U6YTpi", "Basic YWxpY2U", "Basic !!!!", "Basic /zo6"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_hash_of_nobody_is_one() {
        let none = WebConfig {
            tls: None,
            asks_for_certificate: false,
            users: std::collections::BTreeMap::new(),
            headers: Vec::new(),
            rate: None,
        };
        assert!(stranger(&none).parse::<bcrypt::HashParts>().is_ok());
    }
}
