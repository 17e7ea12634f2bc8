//! Alertmanager's API v2: what fires is sent again and again with an end in the near future; the end is now.
//!
//! So an observer that dies leaves no alert behind: Alertmanager ends it by itself. The same labels mean the same
//! alert, also to the rules in deploy/prometheus, whose names these alerts bear.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::delivery::{Current, Deliver, Failure};
use super::http::Client;
use super::message::{Notification, Phase, rfc3339};
use super::options::Alertmanager;
use super::severity::Severity;

/// Alertmanager forgets an alert this many intervals after it was last sent.
const INTERVALS: f64 = 4.0;

pub(super) struct ToAlertmanager {
    client: Client,
    options: Alertmanager,
    current: Arc<Current>,
}

impl ToAlertmanager {
    pub(super) fn new(options: Alertmanager, current: Arc<Current>) -> Self {
        let base = options.url.trim_end_matches('/');
        let url =
            if base.ends_with("/api/v2/alerts") { base.to_owned() } else { format!("{base}/api/v2/alerts") };
        let client = Client::new(url, options.headers.clone(), options.timeout);
        Self { client, options, current }
    }

    fn end(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        rfc3339(now + INTERVALS * self.options.resend_interval.as_secs_f64())
    }
}

impl Deliver for ToAlertmanager {
    fn deliver(&mut self, told: &Notification, left: Option<Duration>) -> Result<(), Failure> {
        let mut alerts = Vec::new();
        if let Some(was) = told.was {
            alerts.push(alert(told, was, &told.at, &self.options));
        }
        let end = match told.phase {
            Phase::End => told.ended_at.clone().unwrap_or_else(|| told.at.clone()),
            Phase::Start | Phase::Repeat => self.end(),
        };
        alerts.push(alert(told, told.severity, &end, &self.options));
        self.client.post(&Value::Array(alerts).to_string(), left)
    }

    fn resend(&mut self) -> Option<Result<(), Failure>> {
        let firing = self.current.all();
        if firing.is_empty() {
            return None;
        }
        let end = self.end();
        let alerts = firing.iter().map(|told| alert(told, told.severity, &end, &self.options)).collect();
        Some(self.client.post(&Value::Array(alerts).to_string(), None))
    }

    fn resend_interval(&self) -> Option<Duration> {
        Some(self.options.resend_interval)
    }
}

fn alert(told: &Notification, severity: Severity, end: &str, options: &Alertmanager) -> Value {
    let mut labels = Map::new();
    for (name, value) in &options.labels {
        labels.insert(name.clone(), json!(value));
    }
    labels.insert("alertname".to_owned(), json!(told.alert.rule()));
    labels.insert("target".to_owned(), json!(told.target.name));
    labels.insert("severity".to_owned(), json!(severity.name()));
    let about = &told.target;
    for (name, value) in
        [("pod", &about.pod), ("namespace", &about.namespace), ("container", &about.container)]
    {
        if let Some(value) = value {
            labels.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(blamed) = &told.culprit {
        labels.insert("site".to_owned(), json!(blamed.site));
        labels.insert("stack_id".to_owned(), json!(blamed.stack_id));
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": { "summary": told.summary, "description": told.text },
        "startsAt": told.started_at,
        "endsAt": end,
    });
    if !told.url.is_empty()
        && let Some(alert) = alert.as_object_mut()
    {
        alert.insert("generatorURL".to_owned(), json!(told.url));
    }
    alert
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tell::alert::example::example;

    #[test]
    fn an_alert_has_the_labels_of_its_rule_and_a_link() {
        let told = example();
        let mut options = Alertmanager::new("http://127.0.0.1:1");
        options.labels.insert("cluster".to_owned(), "one".to_owned());
        options.labels.insert("alertname".to_owned(), "not this".to_owned());
        let shown = alert(&told, told.severity, "2027-01-15T08:04:00Z", &options);
        assert_eq!(shown["labels"]["alertname"], "ObserverLeakSuspected");
        assert_eq!(shown["labels"]["cluster"], "one");
        assert_eq!(shown["labels"]["site"], "checkout.(*Quoter).fetch quote.go:41");
        assert_eq!(shown["generatorURL"], told.url);
        assert_eq!(shown["startsAt"], told.started_at);
    }
}
