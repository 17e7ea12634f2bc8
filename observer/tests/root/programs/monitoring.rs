//! Prometheus and Alertmanager as tests run them: on loopback, in a directory of their own, ended with the test.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A program that is killed when this is dropped.
pub struct Background(Child);

impl Background {
    /// What it prints goes to `NAME.log` in the directory.
    pub fn start(name: &str, directory: &Path, command: &mut Command) -> Self {
        let log = File::create(directory.join(format!("{name}.log"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Self(child.unwrap_or_else(|error| missing(name, &error)))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn missing(program: &str, error: &std::io::Error) -> ! {
    panic!("{program} does not run: {error}; install it: cargo xtask setup")
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a tool with something on its standard input.
pub fn tool(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing(program, &error));
    // Small enough for the pipe, or read as it comes.
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A tool says that all is well.
#[track_caller]
pub fn content(output: &Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
}

pub fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus").join(name)
}

/// As it stands in an address.
pub fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

pub fn get(url: &str) -> Option<String> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build(),
    );
    agent.get(url).call().ok()?.body_mut().read_to_string().ok()
}

/// Waits until there is something, and gives it.
#[track_caller]
pub fn within<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            println!("{:>5.1} s until {what}", begun.elapsed().as_secs_f64());
            return found;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(seconds),
            "in {seconds} s it never came to pass that {what}"
        );
        thread::sleep(Duration::from_millis(250));
    }
}

pub struct Alertmanager {
    port: u16,
    _running: Background,
}

impl Alertmanager {
    /// Sends everything on to a webhook, at once.
    pub fn start(directory: &Path, webhook: &str) -> Self {
        let port = free_port();
        let config = directory.join("alertmanager.yml");
        let text = format!(
            "route: {{receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: hook, webhook_configs: [{{url: '{webhook}', send_resolved: true}}]}}]\n"
        );
        fs::write(&config, text).unwrap();
        content(&tool("amtool", &["check-config", config.to_str().unwrap()], b""));
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.join("am").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let running = Background::start("alertmanager", directory, &mut command);
        let this = Self { port, _running: running };
        within(60, "Alertmanager is ready", || get(&format!("{}/-/ready", this.url())));
        this
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

pub struct Prometheus {
    port: u16,
    _running: Background,
}

impl Prometheus {
    /// Scrapes this port and evaluates every second, with our rules, their patience shortened.
    pub fn start(directory: &Path, scraped: u16, alertmanager: &Alertmanager) -> Self {
        let rules = fs::read_to_string(deployed("rules.yml")).unwrap();
        let hasty =
            rules.replace(" for: 1m\n", " for: 1s\n").replace("keep_firing_for: 15m", "keep_firing_for: 5s");
        assert_ne!(rules, hasty);
        fs::write(directory.join("rules.yml"), hasty).unwrap();
        let config = fs::read_to_string(deployed("prometheus.yml"))
            .unwrap()
            .replace("127.0.0.1:9093", alertmanager.url().trim_start_matches("http://"))
            .replace("127.0.0.1:9713", &format!("127.0.0.1:{scraped}"));
        Self::run(directory, "prometheus", &config, &[])
    }

    /// As this configuration has it, but every second.
    pub fn run(directory: &Path, name: &str, config: &str, arguments: &[&str]) -> Self {
        let path = directory.join(format!("{name}.yml"));
        let hasty =
            config.replace("_interval: 15s", "_interval: 1s").replace("_interval: 30s", "_interval: 1s");
        fs::write(&path, hasty).unwrap();
        content(&tool("promtool", &["check", "config", path.to_str().unwrap()], b""));
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join(format!("{name}.tsdb")).display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(arguments);
        let running = Background::start(name, directory, &mut command);
        let this = Self { port, _running: running };
        within(60, &format!("{name} is ready"), || get(&format!("http://127.0.0.1:{port}/-/ready")));
        this
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The labels and the value of every series that an expression gives.
    pub fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = get(&format!("{}/api/v1/query?query={}", self.url(), escaped(expression)));
        let answer: Value = serde_json::from_str(&answer.unwrap_or_default()).unwrap_or_default();
        let found = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let number = |series: &Value| series["value"][1].as_str().and_then(|value| value.parse().ok());
        found.iter().filter_map(|series| Some((series["metric"].clone(), number(series)?))).collect()
    }
}
