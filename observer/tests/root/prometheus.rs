//! The whole chain as it is deployed: a service that leaks, the daemon, Prometheus, Alertmanager, a webhook.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use observer::tell::alert::{Alerts, Options};
use observer::tell::metrics::Metrics;
use serde_json::Value;

use crate::programs::checkout::{self, Checkout};
use crate::programs::dashboard;
use crate::programs::monitoring::{
    Alertmanager, Background, Prometheus, content, deployed, free_port, get, tool, within,
};
use crate::support::listener::Listener;
use crate::support::observer::observer;
use crate::support::told::{self, everything};

#[test]
#[ignore = "needs root"]
fn promtool_finds_no_fault_in_the_metrics() {
    let board = everything();
    let metrics = Metrics::new(Arc::clone(&board));
    let alerts = Alerts::new(Options::default()).unwrap();
    alerts.tick(told::BEGAN, &board);
    metrics.watch_alerts(alerts.counters());
    metrics.sampled(0.01);
    let text = metrics.text();
    let shown = String::from_utf8_lossy(&text);
    for name in
        ["futex_wait_seconds_bucket", "mapped_bytes_total", "alerts_firing", "degraded", "losses_total"]
    {
        assert!(shown.contains(&format!("observer_{name}")), "{name} is not shown");
    }
    let output = tool("promtool", &["check", "metrics"], &text);
    content(&output);
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
#[ignore = "needs root"]
fn the_rules_that_we_ship_are_right() {
    let path = |name| deployed(name).display().to_string();
    content(&tool("promtool", &["check", "rules", "--lint=all", "--lint-fatal", &path("rules.yml")], b""));
    content(&tool("promtool", &["test", "rules", &path("rules_test.yml")], b""));
    content(&tool("promtool", &["check", "config", &path("prometheus.yml")], b""));
    let routes = path("alertmanager.yml");
    content(&tool("amtool", &["check-config", &routes], b""));
    for (labels, receiver) in [
        (["alertname=ObserverLeakSuspected", "severity=critical"], "on-call"),
        (["alertname=ObserverLeakSuspected", "severity=warning"], "team"),
        (["alertname=ObserverDegraded", "severity=info"], "nobody"),
    ] {
        let config = format!("--config.file={routes}");
        let output = tool("amtool", &["config", "routes", "test", &config, labels[0], labels[1]], b"");
        content(&output);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), receiver, "{labels:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn every_metric_that_the_rules_speak_of_exists() {
    let known = Metrics::new(everything()).text();
    let known = String::from_utf8(known).unwrap();
    let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
    let mut asked = 0;
    for line in rules.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')) {
            // Counted only once somebody is notified.
            if word.starts_with("observer_") && !word.starts_with("observer_alert_notifications") {
                assert!(known.contains(&format!("# TYPE {word} ")), "{word} in: {line}");
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked}");
}

/// Every alert in what Alertmanager sent, with the address it says it came from.
fn from_alertmanager(hook: &Listener) -> Vec<Value> {
    let bodies = hook.bodies();
    bodies.iter().flat_map(|body| body["alerts"].as_array().cloned().unwrap_or_default()).collect()
}

fn leak<'a>(alerts: &'a [Value], status: &str, of_prometheus: bool) -> Option<&'a Value> {
    alerts.iter().find(|alert| {
        alert["labels"]["alertname"] == "ObserverLeakSuspected"
            && alert["status"] == status
            && alert["labels"]["job"].is_string() == of_prometheus
    })
}

#[test]
#[ignore = "needs root"]
fn a_leak_reaches_those_who_are_on_call_and_its_end_does() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let program = checkout::build(place);
    let (through_alertmanager, direct) = (Listener::start(|_| 200), Listener::start(|_| 200));
    let alertmanager = Alertmanager::start(place, &through_alertmanager.url("/am"));

    let port = free_port();
    let config = place.join("observer.toml");
    let text = format!(
        r#"
        [[target]]
        name = "checkout"
        exe = "{}"
        cmdline = "serve"
        [web]
        listen = ["127.0.0.1:{port}"]
        [sampling]
        interval = "1s"
        # An unoptimized build on a busy machine.
        cpu = "50%"
        [alerts]
        log = "{}"
        leak_for = "1s"
        startup = "0s"
        keep_firing_for = "5s"
        [[alerts.webhook]]
        name = "direct"
        url = "{}"
        [[alerts.alertmanager]]
        url = "{}"
        resend_interval = "2s"
        "#,
        program.display(),
        place.join("alerts.json").display(),
        direct.url("/direct"),
        alertmanager.url(),
    );
    fs::write(&config, text).unwrap();
    let mut command = observer(&["run", "--config", config.to_str().unwrap()]);
    let _daemon = Background::start("observer", place, &mut command);
    let metrics = || get(&format!("http://127.0.0.1:{port}/metrics"));
    within(60, "the daemon is there before its target", metrics);
    let prometheus = Prometheus::start(place, port, &alertmanager);

    let checkout = Checkout::start(&program, &[], 60);
    let (labels, growth) = within(240, "Prometheus knows the line", || {
        prometheus.query("topk(1, observer_leak_growth_bytes_per_second{target=\"checkout\"})").pop()
    });
    let site = labels["site"].as_str().unwrap().to_owned();
    let line: usize = site.strip_prefix("checkout.(*Quoter).fetch quote.go:").expect(&site).parse().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets/go/checkout/quote.go");
    let source = fs::read_to_string(source).unwrap();
    assert!(source.lines().nth(line - 1).unwrap().contains("<-"), "{site}");
    assert!(growth > 100.0 * 1024.0, "{growth}");
    content(&tool("promtool", &["check", "metrics"], metrics().unwrap().as_bytes()));

    let told = within(60, "the rule of Prometheus reaches the webhook behind Alertmanager", || {
        leak(&from_alertmanager(&through_alertmanager), "firing", true).cloned()
    });
    assert_eq!(told["labels"]["site"], site.as_str());
    assert!(told["annotations"]["summary"].as_str().unwrap().contains(&site), "{told}");
    let told = within(60, "observer's own alert does as well", || {
        leak(&from_alertmanager(&through_alertmanager), "firing", false).cloned()
    });
    assert_eq!(told["labels"]["site"], site.as_str());
    assert!(told["generatorURL"].as_str().unwrap().ends_with("/targets/checkout"), "{told}");
    let told = within(60, "and observer tells the other webhook itself", || direct.bodies().pop());
    assert_eq!((&told["schema"], &told["phase"]), (&"observer.alert/1".into(), &"start".into()), "{told}");
    assert_eq!(told["culprit"]["site"], site.as_str());
    println!("{}\n{}", told["summary"].as_str().unwrap(), told["text"].as_str().unwrap());

    let whole = String::from_utf8(Metrics::new(everything()).text()).unwrap();
    dashboard::finds_what_it_asks_for(&prometheus, &format!("{}{whole}", metrics().unwrap()));

    // It crashes: nobody is told that all is well.
    drop(checkout);
    within(60, "Prometheus sees that it is gone", || {
        (prometheus.query("observer_target_up{target=\"checkout\"}").pop()?.1 == 0.0).then_some(())
    });
    assert_eq!(prometheus.query("observer_leak_suspected{target=\"checkout\"} == 1").len(), 1);
    assert!(leak(&from_alertmanager(&through_alertmanager), "resolved", true).is_none());
    assert!(direct.bodies().iter().all(|told| told["phase"] != "end"));

    // Its fixed twin takes its place.
    let fixed = Checkout::start(&program, &["--fixed"], 60);
    let resolved = |of_prometheus| {
        let all = from_alertmanager(&through_alertmanager);
        leak(&all, "resolved", of_prometheus).map(|_| ())
    };
    within(240, "the webhook is told the end", || {
        direct.bodies().pop().filter(|told| told["phase"] == "end")
    });
    within(60, "Alertmanager resolves observer's own alert", || resolved(false));
    within(60, "and that of Prometheus", || resolved(true));
    let pids = prometheus.query("observer_target_info{target=\"checkout\"}");
    let pid = fixed.service.pid().to_string();
    assert!(pids.iter().any(|(labels, _)| labels["pid"] == pid.as_str()), "{pids:?}");
    let log = fs::read_to_string(place.join("alerts.json")).unwrap();
    assert!(log.lines().count() >= 2, "{log}");
}
