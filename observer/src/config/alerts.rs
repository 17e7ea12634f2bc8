//! What is said of alerts, checked: who is told, when, and of what.
//!
//! Reads the files that it names (an address that is secret, a template).

use std::fs;
use std::path::PathBuf;

use super::raw::{Alertmanager, Alerts, Silence, Webhook};
use super::units;
use super::value::{ConfigError, duration, wrong};
use crate::tell::alert::{self, Log, Options, Receiver, ReceiverKind, Rules, Template};

/// A file that is longer is no address and no template.
const MOST_BYTES: u64 = 64 << 10;

/// The options, with what alerts link to still to be said.
pub(super) fn options(raw: &Alerts) -> Result<Options, ConfigError> {
    let mut receivers = Vec::new();
    match raw.log.as_deref() {
        None | Some("stdout") => receivers.push(to_log(Log::Stdout)),
        Some("stderr") => receivers.push(to_log(Log::Stderr)),
        Some("none") => {}
        Some(path) if path.contains('/') => receivers.push(to_log(Log::File(PathBuf::from(path)))),
        Some(other) => {
            return Err(wrong(
                "alerts.log",
                format!("`{other}`: may be stdout, stderr, none or the path of a file"),
            ));
        }
    }
    for (index, webhook) in raw.webhook.iter().enumerate() {
        let name = webhook.name.clone().unwrap_or_else(|| numbered("webhook", index));
        receivers.push(Receiver { name, to: ReceiverKind::Webhook(to_webhook(webhook)?) });
    }
    for (index, alertmanager) in raw.alertmanager.iter().enumerate() {
        let name = alertmanager.name.clone().unwrap_or_else(|| numbered("alertmanager", index));
        receivers.push(Receiver { name, to: ReceiverKind::Alertmanager(to_alertmanager(alertmanager)?) });
    }
    let options = Options {
        external_url: String::new(),
        rules: rules(raw)?,
        silences: raw.silence.iter().map(silence).collect::<Result<_, _>>()?,
        receivers,
    };
    alert::options::check(&options).map_err(|error| wrong("alerts", error.to_string()))?;
    Ok(options)
}

fn to_log(log: Log) -> Receiver {
    Receiver { name: "log".to_owned(), to: ReceiverKind::Log(log) }
}

fn numbered(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}-{}", index + 1) }
}

fn rules(raw: &Alerts) -> Result<Rules, ConfigError> {
    let given = Rules::default();
    let time = |key: &str, text: &Option<String>, default| {
        duration(&format!("alerts.{key}"), text.as_ref(), default)
    };
    let share = raw.limit_share_per_hour.as_deref().map_or(Ok(given.limit_share_per_hour), units::percent);
    let bytes = raw.bytes_per_hour.as_deref().map(units::bytes).transpose();
    let bytes = bytes.map_err(|message| wrong("alerts.bytes_per_hour", message))?;
    Ok(Rules {
        least_confidence: raw.least_confidence.unwrap_or(given.least_confidence),
        limit_share_per_hour: share.map_err(|message| wrong("alerts.limit_share_per_hour", message))?,
        bytes_per_hour: bytes.map_or(given.bytes_per_hour, |bytes| bytes as f64),
        time_to_limit: time("time_to_limit", &raw.time_to_limit, given.time_to_limit)?,
        critical_time_to_limit: time(
            "critical_time_to_limit",
            &raw.critical_time_to_limit,
            given.critical_time_to_limit,
        )?,
        leak_for: time("leak_for", &raw.leak_for, given.leak_for)?,
        growing_for: time("growing_for", &raw.growing_for, given.growing_for)?,
        deadlocks: raw.deadlocks.unwrap_or(given.deadlocks),
        keep_firing_for: time("keep_firing_for", &raw.keep_firing_for, given.keep_firing_for)?,
        repeat_interval: time("repeat_interval", &raw.repeat_interval, given.repeat_interval)?,
        startup: time("startup", &raw.startup, given.startup)?,
    })
}

fn to_webhook(raw: &Webhook) -> Result<alert::Webhook, ConfigError> {
    const KEY: &str = "alerts.webhook";
    let url = match (&raw.url, &raw.url_file) {
        (Some(url), None) => url.clone(),
        (None, Some(path)) => file(KEY, path)?.trim().to_owned(),
        _ => return Err(wrong(KEY, "give one of url and url_file".to_owned())),
    };
    let template = match (raw.template.as_deref(), &raw.template_file) {
        (None, Some(path)) => Template::Custom(file(KEY, path)?),
        (None | Some("json"), None) => Template::Json,
        (Some("slack"), None) => Template::Slack,
        (Some("discord"), None) => Template::Discord,
        (Some("teams"), None) => Template::Teams,
        (Some("mattermost"), None) => Template::Mattermost,
        (Some(_), Some(_)) => return Err(wrong(KEY, "give one of template and template_file".to_owned())),
        (Some(other), None) => {
            let known = "json, slack, discord, teams or mattermost";
            return Err(wrong(
                KEY,
                format!("template `{other}`: may be {known}; your own goes by template_file"),
            ));
        }
    };
    Ok(alert::Webhook {
        headers: pairs(&raw.headers),
        timeout: duration(KEY, raw.timeout.as_ref(), alert::options::TIMEOUT)?,
        give_up_after: duration(KEY, raw.give_up_after.as_ref(), alert::options::GIVE_UP_AFTER)?,
        ..alert::Webhook::new(&url, template)
    })
}

fn to_alertmanager(raw: &Alertmanager) -> Result<alert::Alertmanager, ConfigError> {
    const KEY: &str = "alerts.alertmanager";
    let url = raw.url.as_ref().ok_or_else(|| wrong(KEY, "url is missing".to_owned()))?;
    let given = alert::Alertmanager::new(url);
    Ok(alert::Alertmanager {
        labels: raw.labels.clone(),
        headers: pairs(&raw.headers),
        timeout: duration(KEY, raw.timeout.as_ref(), given.timeout)?,
        give_up_after: duration(KEY, raw.give_up_after.as_ref(), given.give_up_after)?,
        resend_interval: duration(KEY, raw.resend_interval.as_ref(), given.resend_interval)?,
        ..given
    })
}

fn pairs(headers: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn file(key: &str, path: &str) -> Result<String, ConfigError> {
    let failed = |error: std::io::Error| wrong(key, format!("{path}: {error}"));
    if fs::metadata(path).map_err(failed)?.len() > MOST_BYTES {
        return Err(wrong(key, format!("{path}: longer than 64 KiB")));
    }
    fs::read_to_string(path).map_err(failed)
}

fn silence(raw: &Silence) -> Result<alert::Silence, ConfigError> {
    const KEY: &str = "alerts.silence";
    let time = |what: &str, text: Option<&String>| {
        text.map_or(Ok(0), |text| minute(text))
            .map_err(|()| wrong(KEY, format!("{what} is no time of the day: write it as 02:30, in UTC")))
    };
    let weekdays = raw.weekdays.iter().map(|day| {
        const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let day = day.to_ascii_lowercase();
        let found = DAYS.iter().position(|name| day.starts_with(name));
        let number = found.and_then(|index| u8::try_from(index).ok());
        number.ok_or_else(|| wrong(KEY, format!("`{day}` is no day of the week: write mon, tue, ...")))
    });
    Ok(alert::Silence {
        target: raw.target.clone().unwrap_or_else(|| "*".to_owned()),
        from_minute: time("from", raw.from.as_ref())?,
        to_minute: time("to", raw.to.as_ref())?,
        weekdays: weekdays.collect::<Result<_, _>>()?,
    })
}

/// Minutes after midnight.
fn minute(text: &str) -> Result<u16, ()> {
    let (hours, minutes) = text.split_once(':').ok_or(())?;
    let hours: u16 = hours.parse().map_err(|_| ())?;
    let minutes: u16 = minutes.parse().map_err(|_| ())?;
    if hours < 24 && minutes < 60 { Ok(hours * 60 + minutes) } else { Err(()) }
}
