//! Several observers, each of a replica of the same service, and one Prometheus: the rules name the line and the replica
//! that leaks. So does a central Prometheus, by federation, and a store by remote write, from the configurations that
//! we ship. And what else a fleet is given (profiles, grouping) finds what it asks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::programs::checkout::{self, Checkout};
use crate::programs::monitoring::{Background, Prometheus, content, deployed, free_port, get, tool, within};
use crate::support::observer::observer;

/// Carts a second of each replica: the leak is in all of them, and one is busy.
const RATES: [u32; 3] = [2, 60, 2];
const BAD: usize = 1;

/// An observer of the program at this path, and of nothing else.
fn observe(program: &Path, directory: &Path) -> (u16, Background) {
    let port = free_port();
    let config = directory.join("observer.toml");
    let text = format!(
        "[[target]]\nname = \"checkout\"\nexe = \"{}\"\ncmdline = \"serve\"\n[web]\nlisten = [\"127.0.0.1:{port}\"]\n\
         [sampling]\ninterval = \"1s\"\n# Unoptimized builds on a busy machine.\ncpu = \"30%\"\n[alerts]\nlog = \"none\"\n",
        program.display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = observer(&["run", "--config", config.to_str().unwrap()]);
    (port, Background::start("observer", directory, &mut command))
}

#[test]
#[ignore = "needs root"]
fn the_rules_name_the_line_and_the_bad_replica_among_good_ones() {
    let directory = tempfile::tempdir().unwrap();
    let built = checkout::build(directory.path());
    let mut replicas = Vec::new();
    for (number, rate) in RATES.into_iter().enumerate() {
        let place = directory.path().join(format!("replica-{number}"));
        fs::create_dir(&place).unwrap();
        // Each observer goes by the path of its own.
        let program = place.join("checkout");
        fs::copy(&built, &program).unwrap();
        let (port, daemon) = observe(&program, &place);
        replicas.push((port, daemon, Checkout::start(&program, &[], rate)));
    }
    let ports: Vec<u16> = replicas.iter().map(|(port, ..)| *port).collect();
    let (prometheus, central, store) = monitor(directory.path(), &ports);
    within(60, "every replica has the line", || {
        let count = "count(observer_site_growth_per_second{site=~\"checkout.*fetch quote.go:.*\"})";
        prometheus.query(count).pop().filter(|(_, replicas)| *replicas >= RATES.len() as f64)
    });

    let site = within(60, "the line that leaks is the worst of the fleet", || {
        let (worst, _) = prometheus.query("topk(1, fleet:observer_worst_growth:rms)").pop()?;
        let site = worst["site"].as_str()?.to_owned();
        site.starts_with("checkout.(*Quoter).fetch quote.go:").then_some(site)
    });
    let bad = format!("127.0.0.1:{}", ports[BAD]);
    let growth = within(30, "the replica is named", || {
        let worst = format!("fleet:observer_worst_replica:growth{{site=\"{site}\"}}");
        let found = prometheus.query(&worst);
        // Of one line there is one worst replica.
        let [(labels, growth)] = &found[..] else { return None };
        let right = labels["instance"] == bad.as_str() && labels["program"] == "checkout";
        right.then_some(*growth)
    });
    let rms = format!("site:observer_site_growth_per_second:rms{{site=\"{site}\"}}");
    let (_, rms) = prometheus.query(&rms).pop().unwrap();
    // One of three: growth / sqrt(3), and a little for the other two. Two scrapes may lie between.
    assert!((0.4..0.9).contains(&(rms / growth)), "{rms} of {growth}");
    println!("{site} at {bad}: {growth:.1}/s more, {rms:.1}/s over all");

    let everywhere = format!("{{site=\"{site}\",instance=\"{bad}\",cluster=\"a\"}}");
    within(30, "the central Prometheus names it, too", || {
        central.query(&format!("global:observer_worst_replica:growth{everywhere}")).pop()
    });
    within(30, "and the store is told", || {
        store.query(&format!("fleet:observer_worst_replica:growth{everywhere}")).pop()
    });
    // Which line is where, line by line and replica by replica, stays where it was scraped.
    for far in [&central, &store] {
        assert_eq!(far.query("observer_site_blocked").len(), 0);
        assert_eq!(far.query("observer_target_info").len(), RATES.len());
    }

    profiles(ports[BAD]);
}

/// The Prometheus that scrapes the observers, the one above it, and the store that it writes to.
fn monitor(directory: &Path, ports: &[u16]) -> (Prometheus, Prometheus, Prometheus) {
    for rules in ["rules.yml", "central-rules.yml"] {
        fs::copy(deployed(rules), directory.join(rules)).unwrap();
    }
    let config = |name| fs::read_to_string(deployed(name)).unwrap();
    let replaced = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let store = Prometheus::run(directory, "store", "{}", &["--web.enable-remote-write-receiver"]);
    let scraped: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let text = replaced(&config("remote-write.yml"), "\"127.0.0.1:9713\"", &scraped.join(", "));
    let receiver = format!("{}/api/v1/write", store.url());
    let text = replaced(&text, "https://metrics.example.org/api/v1/push", &receiver);
    let prometheus = Prometheus::run(directory, "prometheus", &text, &[]);
    let address = prometheus.url().replace("http://", "");
    let text = replaced(&config("central.yml"), "prometheus.a.example.org:9090", &address);
    // The other one cannot be reached.
    let text = replaced(&text, "prometheus.b.example.org:9090", "127.0.0.1:9");
    let central = Prometheus::run(directory, "central", &text, &[]);
    (prometheus, central, store)
}

/// What Parca and Pyroscope are told to fetch is there, and is a profile.
fn profiles(port: u16) {
    for name in ["parca.yaml", "pyroscope.alloy"] {
        let config = fs::read_to_string(profile_config(name)).unwrap();
        let quoted = |key: &str| -> Vec<String> {
            let values = config.split(key).skip(1).map(|rest| rest.trim_start_matches([' ', '=', ':', '"']));
            values
                .map(|rest| rest.chars().take_while(|c| !matches!(c, '"' | '}' | '\n')).collect())
                .filter(|value: &String| value.starts_with('/'))
                .collect()
        };
        let prefix = quoted("path_prefix").pop().expect("a prefix");
        let paths: Vec<String> = quoted("path ")
            .into_iter()
            .chain(quoted("path:"))
            .map(|path| format!("{prefix}{path}"))
            .collect();
        assert_eq!(paths.len(), 2, "{name}: {paths:?}");
        for path in paths {
            let answer = ureq::get(format!("http://127.0.0.1:{port}{path}"))
                .config()
                .timeout_global(Some(Duration::from_secs(30)))
                .build()
                .call();
            let body = answer.unwrap_or_else(|error| panic!("{name} {path}: {error}"));
            let bytes = body.into_body().read_to_vec().unwrap();
            assert_eq!(bytes.get(..2), Some(&[0x1f, 0x8b][..]), "{name} {path} is not packed by gzip");
        }
    }
}

fn profile_config(name: &str) -> PathBuf {
    deployed(name).parent().unwrap().join("../profiles").join(name)
}

#[test]
#[ignore = "needs root"]
fn what_a_fleet_is_given_is_valid() {
    let path = |name| deployed(name).display().to_string();
    for name in ["central.yml", "remote-write.yml"] {
        content(&tool("promtool", &["check", "config", &path(name)], b""));
    }
    let rules = path("central-rules.yml");
    content(&tool("promtool", &["check", "rules", "--lint=all", "--lint-fatal", &rules], b""));
    content(&tool("promtool", &["test", "rules", &path("central-rules_test.yml")], b""));
}

#[test]
#[ignore = "needs root"]
fn a_line_that_leaks_in_a_hundred_replicas_is_one_notification() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = std::process::Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", deployed("alertmanager.yml").display()))
        .arg(format!("--storage.path={}", directory.path().join("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=");
    let _alertmanager = Background::start("alertmanager", directory.path(), &mut command);
    let url = format!("http://127.0.0.1:{port}");
    within(60, "Alertmanager is ready", || get(&format!("{url}/-/ready")));
    let of = |target: usize, site: &str| {
        json!({"labels": {
            "alertname": "ObserverLeakSuspected", "severity": "warning", "site": site,
            "target": format!("checkout@{target}"), "instance": format!("node-{target}:9713"),
        }})
    };
    let mut alerts: Vec<Value> = (0..100).map(|target| of(target, "checkout.fetch quote.go:57")).collect();
    alerts.push(of(1, "checkout.other pool.go:7"));
    let sent = ureq::post(format!("{url}/api/v2/alerts"))
        .header("Content-Type", "application/json")
        .send(json!(alerts).to_string());
    sent.unwrap();
    let mut sizes: Vec<usize> = within(30, "the alerts are grouped", || {
        let groups: Value = serde_json::from_str(&get(&format!("{url}/api/v2/alerts/groups"))?).ok()?;
        let groups = groups.as_array()?.iter().map(|group| group["alerts"].as_array().map_or(0, Vec::len));
        Some(groups.collect()).filter(|sizes: &Vec<usize>| sizes.iter().sum::<usize>() == 101)
    });
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 100]);
}
