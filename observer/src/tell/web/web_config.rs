//! `--web.config.file`: TLS, passwords, headers and a rate limit, in the YAML that the Prometheus exporters share.
//!
//! Reads the file and what it names, gives a [`WebConfig`] that is whole, or one line that says what is wrong. Looked
//! at again, at most once a second, when somebody asks: a certificate that was renewed is used at once. What is broken
//! then is logged, and what was read before stays in force; so does protection that a new version no longer has,
//! because a file that is being written looks like one without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use serde::Deserialize;

use super::reader::{Reader, Stamp};
use super::tls::{self, TlsError, TlsSettings};

/// Between two looks at whether something has changed.
const LOOK: Duration = Duration::from_secs(1);
/// What a login may cost: 2^16 rounds take seconds.
const MOST_COST: u32 = 16;

#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    #[error("web config {path}: {what}")]
    Wrong { path: PathBuf, what: String },
    #[error("web config {path} line {line}, column {column}: {what}")]
    At { path: PathBuf, line: u64, column: u64, what: String },
    #[error("web config {path}: tls_server_config: {source}")]
    Tls { path: PathBuf, source: TlsError },
}

/// What the file says.
pub(crate) struct WebConfig {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Who asks must show a certificate of ours.
    pub(crate) asks_for_certificate: bool,
    /// Name and bcrypt hash; empty for no passwords.
    pub(crate) users: BTreeMap<String, String>,
    /// On every answer that does not have them already.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) rate: Option<Rate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// One request each.
    pub(crate) interval: Duration,
    pub(crate) burst: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    tls_server_config: Option<TlsSettings>,
    http_server_config: Option<HttpSettings>,
    basic_auth_users: Option<BTreeMap<String, String>>,
    rate_limit: Option<RateSettings>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpSettings {
    /// Accepted, and without effect: HTTP/1.1 is spoken here.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RateSettings {
    interval: Option<String>,
    burst: Option<u32>,
}

/// Whether the server is reached by https with this file. Wrong files are not: to start with one fails anyway.
pub fn asks_for_tls(path: &Path) -> bool {
    read(path).0.is_ok_and(|config| config.tls.is_some())
}

/// The file as it is now, and what was read for it, also when it is wrong.
fn read(path: &Path) -> (Result<WebConfig, WebConfigError>, Vec<Stamp>) {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { directory, stamps: Vec::new() };
    let config = read_with(path, &mut reader);
    (config, reader.stamps)
}

fn read_with(path: &Path, reader: &mut Reader) -> Result<WebConfig, WebConfigError> {
    let wrong = |what: String| WebConfigError::Wrong { path: path.to_owned(), what };
    let name = path.file_name().and_then(|name| name.to_str());
    let bytes = reader
        .read(name.ok_or_else(|| wrong("not a file".to_owned()))?)
        .map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
    let file = parse(&text).map_err(|(at, what)| match at {
        Some((line, column)) => WebConfigError::At { path: path.to_owned(), line, column, what },
        None => wrong(what),
    })?;
    let mut headers = Vec::new();
    let http = file.http_server_config.unwrap_or_default();
    for (name, value) in http.headers.unwrap_or_default() {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            headers.push(header(&name, &value).map_err(wrong)?);
        }
    }
    let users = file.basic_auth_users.unwrap_or_default();
    for (user, hash) in &users {
        let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
            wrong(format!("basic_auth_users: the password of {user:?} is not a bcrypt hash (htpasswd -nBC 10 {user:?} makes one)"))
        })?;
        if user.is_empty() || user.contains(':') {
            return Err(wrong(format!(
                "basic_auth_users: {user:?} cannot be a user name (it is empty or has a colon)"
            )));
        }
        if parts.get_cost() > MOST_COST {
            return Err(wrong(format!(
                "basic_auth_users: the hash of {user:?} has cost {}, a login would take long: at most {MOST_COST}",
                parts.get_cost()
            )));
        }
    }
    let rate = match file.rate_limit {
        Some(rate) => rate_limit(&rate).map_err(wrong)?,
        None => None,
    };
    let (mut tls, mut asks_for_certificate) = (None, false);
    if let Some(settings) = file.tls_server_config.filter(TlsSettings::is_given) {
        let (config, asks) = tls::server_config(&settings, reader)
            .map_err(|source| WebConfigError::Tls { path: path.to_owned(), source })?;
        (tls, asks_for_certificate) = (Some(config), asks);
    }
    Ok(WebConfig { tls, asks_for_certificate, users, headers, rate })
}

type Wrong = (Option<(u64, u64)>, String);

/// Without a snippet of the file in what is said: there are secrets in it.
fn parse(text: &str) -> Result<Document, Wrong> {
    // Comments alone are a file that asks for nothing.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Document::default());
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map(|location| (location.line(), location.column()));
        let said = error.without_snippet().render();
        let said = said.lines().next().unwrap_or_default();
        // The place is said in our words.
        let what = said.split(" at line ").next().unwrap_or(said);
        (at, what.chars().filter(|c| !c.is_control()).take(300).collect())
    })
}

/// Those that the exporters take, and the values that they take.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let known: [(&str, &[&str]); 5] = [
        ("Content-Security-Policy", &[]),
        ("X-Frame-Options", &["deny", "sameorigin"]),
        ("X-Content-Type-Options", &["nosniff"]),
        ("X-XSS-Protection", &[]),
        ("Strict-Transport-Security", &[]),
    ];
    let Some((_, values)) = known.iter().find(|(known, _)| *known == name) else {
        let names = known.map(|(name, _)| name).join(", ");
        return Err(format!("http_server_config: header {name:?} cannot be set here, only {names}"));
    };
    let lower = value.to_ascii_lowercase();
    if !values.is_empty() && !values.contains(&lower.as_str()) {
        return Err(format!("http_server_config: {name} is {value:?}, it can be {}", values.join(" or ")));
    }
    let value = HeaderValue::from_str(value)
        .map_err(|_| format!("http_server_config: {name} cannot be sent: it has a control character"))?;
    HeaderName::from_bytes(name.as_bytes()).map(|name| (name, value)).map_err(|error| error.to_string())
}

fn rate_limit(settings: &RateSettings) -> Result<Option<Rate>, String> {
    let interval = settings.interval.as_deref().unwrap_or("0");
    let interval = parse_duration(interval)
        .ok_or_else(|| format!("rate_limit: interval {interval:?} is no duration (as in 100ms or 1m30s)"))?;
    let burst = settings.burst.unwrap_or(0);
    if interval.is_zero() {
        return Ok(None);
    }
    if burst == 0 {
        return Err("rate_limit: without a burst of at least 1 no request would ever be answered".to_owned());
    }
    Ok(Some(Rate { interval, burst }))
}

/// As Go writes them: numbers with their units, largest first or not.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// The file, and what it said when it was last whole.
pub(crate) struct Watched {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    config: Arc<WebConfig>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl Watched {
    /// Reads it for the first time: then it must be whole.
    pub(crate) fn open(path: &Path) -> Result<Self, WebConfigError> {
        let (config, stamps) = read(path);
        let inner = Inner { config: Arc::new(config?), stamps, looked: Instant::now() };
        Ok(Self { path: path.to_owned(), inner: Mutex::new(inner) })
    }

    /// What is in force. A disk that hangs does not hold up whoever asks: it is looked at elsewhere.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<WebConfig> {
        let due = {
            let mut inner = self.lock();
            let due = inner.looked.elapsed() >= LOOK;
            if due {
                inner.looked = Instant::now();
            }
            due
        };
        if due {
            let this = Arc::clone(self);
            let look = tokio::task::spawn_blocking(move || this.look());
            // Later is soon enough.
            let _ = tokio::time::timeout(LOOK, look).await;
        }
        self.in_force()
    }

    pub(crate) fn in_force(&self) -> Arc<WebConfig> {
        Arc::clone(&self.lock().config)
    }

    fn look(&self) {
        if self.lock().stamps.iter().all(Stamp::is_current) {
            return;
        }
        let (read, stamps) = read(&self.path);
        let path = self.path.display();
        let mut inner = self.lock();
        // Wrong or not, it is read again only when it changes again.
        inner.stamps = stamps;
        match read {
            Err(error) => tracing::error!("{error}; what was read before stays in force"),
            Ok(new) if new.protects_less_than(&inner.config) => tracing::error!(
                "web config {path}: it no longer asks for TLS, a certificate or a password; what was read before \
                 stays in force, restart observer to do without"
            ),
            Ok(new) => {
                tracing::info!("web config {path}: read anew");
                inner.config = Arc::new(new);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebConfig {
    fn protects_less_than(&self, old: &Self) -> bool {
        (old.tls.is_some() && self.tls.is_none())
            || (old.asks_for_certificate && !self.asks_for_certificate)
            || (!old.users.is_empty() && self.users.is_empty())
    }

    /// A stranger is not answered.
    pub(crate) fn keeps_strangers_out(&self) -> bool {
        self.asks_for_certificate || !self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn said(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yml");
        fs::write(&path, text).unwrap();
        match read(&path).0 {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, milliseconds) in
            [("0", 0), ("1s", 1000), ("100ms", 100), ("1m30s", 90_000), ("1.5s", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "-1s", "1d", "1s1", "..s", "99999999999999999999h", "µ"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_one_line_with_its_place() {
        let hash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
        assert_eq!(said(&format!("basic_auth_users:\n  alice: {hash}\n")), "");
        assert_eq!(said(""), "");
        assert_eq!(said("# nothing\n\n"), "");
        assert_eq!(said("basic_auth_users:\nrate_limit:\n  interval: 1s\n  burst: 20\n"), "");
        assert_eq!(said("http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"), "");
        for (text, words) in [
            ("basic_auth_users:\n  alice: secret\n", &["alice", "bcrypt", "htpasswd"][..]),
            ("basic_auth_users: [a]\n", &["line 1"]),
            ("tls_config:\n  cert_file: a\n", &["line 1", "tls_config"]),
            ("tls_server_config:\n  cert_fil: a\n", &["line 2", "cert_fil"]),
            ("tls_server_config:\n  cert_file: a.crt\n", &["key_file"]),
            ("tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n", &["a.crt", "No such file"]),
            (
                "http_server_config:\n  headers:\n    X-Frame-Options: perhaps\n",
                &["X-Frame-Options", "perhaps"],
            ),
            ("http_server_config:\n  headers:\n    Server: x\n", &["Server"]),
            ("rate_limit:\n  interval: soon\n  burst: 1\n", &["soon"]),
            ("rate_limit:\n  interval: 1s\n", &["burst"]),
            ("a: [\n", &["line"]),
            ("\u{7}", &["web.yml"]),
        ] {
            let said = said(text);
            for word in words {
                assert!(said.contains(word), "{text:?}: {said:?} does not say {word:?}");
            }
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        // Secrets do not get into the log with what is wrong beside them.
        let hidden = said(&format!("basic_auth_users:\n  alice: {hash}\n  bob: [\n"));
        assert!(!hidden.is_empty() && !hidden.contains("QOauhQ"), "{hidden}");
    }
}
