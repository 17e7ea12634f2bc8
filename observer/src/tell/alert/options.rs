//! What may be chosen about alerts. Plain data with defaults that fit most; [`check`] says what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::Uri;
use ureq::http::header::{HeaderName, HeaderValue};

use super::error::AlertError;
use super::silence::{Silence, Silences};
use super::template::{self, Template};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Where the daemon's page is reached, for links in the texts: `http://host:9713`. Empty: no links.
    pub external_url: String,
    pub rules: Rules,
    /// When nothing new is told of some targets.
    pub silences: Vec<Silence>,
    /// Who is told. Without any, alerts are only shown on the page and in the metrics.
    pub receivers: Vec<Receiver>,
}

/// When an alert begins, goes on and ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// A leak that is less sure than this (0 to 1) is not told.
    pub least_confidence: f64,
    /// A leak or growth is told when it takes this share of the memory limit in an hour, ...
    pub limit_share_per_hour: f64,
    /// ... or this many bytes in an hour where there is no limit, ...
    pub bytes_per_hour: f64,
    /// ... or when the limit is reached within this time.
    pub time_to_limit: Duration,
    /// A leak is critical when the limit is reached within this time.
    pub critical_time_to_limit: Duration,
    /// How long a leak must be seen before it is told. The verdict itself needs about a minute before that.
    pub leak_for: Duration,
    /// How long memory must grow without a culprit before that is told: caches fill, too.
    pub growing_for: Duration,
    /// A deadlock is told at once; `false`: not at all.
    pub deadlocks: bool,
    /// How long all must be well before the end is told.
    pub keep_firing_for: Duration,
    /// How often what still fires is told again.
    pub repeat_interval: Duration,
    /// For so long after a process has started, its growth is not told.
    pub startup: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            least_confidence: 0.6,
            limit_share_per_hour: 0.05,
            bytes_per_hour: 50.0 * 1024.0 * 1024.0,
            time_to_limit: hours(24),
            critical_time_to_limit: hours(1),
            leak_for: Duration::from_secs(30),
            growing_for: Duration::from_secs(15 * 60),
            deadlocks: true,
            keep_firing_for: Duration::from_secs(5 * 60),
            repeat_interval: hours(4),
            startup: Duration::from_secs(2 * 60),
        }
    }
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// Unique; names it in the log and in the metrics.
    pub name: String,
    pub to: ReceiverKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ReceiverKind {
    /// One JSON document a line, schema `observer.alert/1`.
    Log(Log),
    Webhook(Webhook),
    Alertmanager(Alertmanager),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    Stdout,
    Stderr,
    /// Appended to, and opened anew for every line, so that it may be rotated.
    File(PathBuf),
}

/// One POST a notification.
#[derive(Clone, PartialEq)]
pub struct Webhook {
    pub url: String,
    pub template: Template,
    /// Names and values, for instance `Authorization`.
    pub headers: Vec<(String, String)>,
    /// For one attempt.
    pub timeout: Duration,
    /// For how long a notification is tried again before it is given up.
    pub give_up_after: Duration,
}

/// Alertmanager's API v2.
#[derive(Clone, PartialEq)]
pub struct Alertmanager {
    /// `http://host:9093`, with a path prefix where it has one; `/api/v2/alerts` is added.
    pub url: String,
    /// Added to every alert, for routes: `cluster`, `team`, ...
    pub labels: BTreeMap<String, String>,
    pub headers: Vec<(String, String)>,
    pub timeout: Duration,
    pub give_up_after: Duration,
    /// How often alerts that fire are sent again. Alertmanager ends them by itself four intervals after the last time.
    pub resend_interval: Duration,
}

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(15 * 60);

impl Webhook {
    pub fn new(url: &str, template: Template) -> Self {
        Self {
            url: url.to_owned(),
            template,
            headers: Vec::new(),
            timeout: TIMEOUT,
            give_up_after: GIVE_UP_AFTER,
        }
    }
}

impl Alertmanager {
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            labels: BTreeMap::new(),
            headers: Vec::new(),
            timeout: TIMEOUT,
            give_up_after: GIVE_UP_AFTER,
            resend_interval: Duration::from_secs(60),
        }
    }
}

/// The address of a webhook and its headers are secrets: neither is ever printed.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &host(&self.url))
            .field("template", &self.template)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alertmanager")
            .field("url", &host(&self.url))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Scheme and host of a URL: the rest may hold a token.
pub(crate) fn host(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(uri) => format!(
            "{}://{}{}",
            uri.scheme_str().unwrap_or("?"),
            uri.host().unwrap_or("?"),
            uri.port().map(|port| format!(":{port}")).unwrap_or_default()
        ),
        Err(_) => "(not a URL)".to_owned(),
    }
}

/// What is wrong with the options, if anything.
pub(crate) fn check(options: &Options) -> Result<Silences, AlertError> {
    let rules = &options.rules;
    let share = |name, value: f64| match value {
        v if (0.0..=1.0).contains(&v) => Ok(()),
        v => Err(AlertError::Number { name, value: v, wanted: "a number from 0 to 1" }),
    };
    share("least_confidence", rules.least_confidence)?;
    share("limit_share_per_hour", rules.limit_share_per_hour)?;
    if !rules.bytes_per_hour.is_finite() || rules.bytes_per_hour < 0.0 {
        return Err(AlertError::Number {
            name: "bytes_per_hour",
            value: rules.bytes_per_hour,
            wanted: "a size",
        });
    }
    if rules.repeat_interval < Duration::from_secs(1) {
        return Err(AlertError::Number {
            name: "repeat_interval",
            value: rules.repeat_interval.as_secs_f64(),
            wanted: "at least a second",
        });
    }
    let mut names = BTreeSet::new();
    for receiver in &options.receivers {
        if receiver.name.is_empty() || !names.insert(&receiver.name) {
            return Err(AlertError::Name(receiver.name.clone()));
        }
        check_receiver(receiver)?;
    }
    if !options.external_url.is_empty() {
        check_url("external_url", &options.external_url)?;
    }
    Silences::new(&options.silences)
}

fn check_receiver(receiver: &Receiver) -> Result<(), AlertError> {
    let name = &receiver.name;
    let (url, headers, timeout) = match &receiver.to {
        ReceiverKind::Log(_) => return Ok(()),
        ReceiverKind::Webhook(webhook) => {
            if let Template::Custom(text) = &webhook.template {
                template::check(text)
                    .map_err(|what| AlertError::Template { receiver: name.clone(), what })?;
            }
            (&webhook.url, &webhook.headers, webhook.timeout)
        }
        ReceiverKind::Alertmanager(to) => {
            if let Some(label) = to.labels.keys().find(|label| !is_label(label)) {
                return Err(AlertError::Label { receiver: name.clone(), label: label.clone() });
            }
            if to.resend_interval < Duration::from_secs(1) {
                return Err(AlertError::Interval { receiver: name.clone(), name: "resend_interval" });
            }
            (&to.url, &to.headers, to.timeout)
        }
    };
    check_url(name, url)?;
    if timeout.is_zero() {
        return Err(AlertError::Interval { receiver: name.clone(), name: "timeout" });
    }
    for (header, value) in headers {
        if HeaderName::try_from(header.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
            return Err(AlertError::Header { receiver: name.clone(), header: header.clone() });
        }
    }
    Ok(())
}

fn check_url(of: &str, url: &str) -> Result<(), AlertError> {
    let wrong = |what| AlertError::Url { of: of.to_owned(), what };
    let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it does not begin with http:// or https://"));
    }
    let authority = uri.authority().map(ureq::http::uri::Authority::as_str).unwrap_or_default();
    if authority.contains('@') {
        return Err(wrong("it holds a user name; give an Authorization header instead"));
    }
    if uri.host().is_none_or(str::is_empty) { Err(wrong("it names no host")) } else { Ok(()) }
}

fn is_label(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
