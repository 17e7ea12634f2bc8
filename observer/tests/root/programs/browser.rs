//! A real Chromium, driven over WebDriver by its own chromedriver: what a reader sees, does and hears of errors.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// For anything that the page does by itself; nothing waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);
const REMEDY: &str = "install chromium and chromium-driver: cargo xtask setup";

pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    /// Removed when this is dropped.
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}; {REMEDY}"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok()
            })
            .unwrap_or_else(|| panic!("chromedriver did not start; {REMEDY}"));
        // Whatever it says later is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let profile = tempfile::tempdir().unwrap();
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ];
        let mut args: Vec<String> = flags.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser =
            Self { driver, session: format!("http://127.0.0.1:{port}/session"), agent, _profile: profile };
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let opened = browser.ask("POST", "", &wanted);
        let id = opened["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {opened}; {REMEDY}"));
        browser.session += &format!("/{id}");
        browser.size(1280, 900);
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let address = format!("{}{path}", self.session);
        let answer = match method {
            "POST" => self.agent.post(&address).send_json(body),
            "DELETE" => self.agent.delete(&address).call(),
            _ => self.agent.get(&address).call(),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let ok = answer.status().is_success();
        // Screenshots of long pages are more than the default bound.
        let read = answer.body_mut().with_config().limit(100 << 20).read_json::<Value>().unwrap();
        assert!(ok, "{method} {path} {body}: {}", read["value"]);
        read["value"].clone()
    }

    pub fn open(&self, address: &str) {
        self.ask("POST", "/url", &json!({"url": address}));
    }

    /// What a script returns: `return ...`.
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Scripts run in the frame of that number from here on; in the page itself with none.
    pub fn enter(&self, frame: Option<u32>) {
        self.ask("POST", "/frame", &json!({"id": frame}));
    }

    /// Waits until a script returns something true, and gives it.
    pub fn until(&self, script: &str) -> Value {
        let begun = Instant::now();
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "never true: {script}\n{}",
                self.run("return document.body.innerText")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses keys: the characters of a string, `\u{e004}` Tab, `\u{e007}` Enter.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        self.ask(
            "POST",
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}),
        );
    }

    /// Clicks at a place of the window.
    pub fn click(&self, x: f64, y: f64) {
        let (x, y) = (x.round() as i64, y.round() as i64);
        let actions = json!([
            {"type": "pointerMove", "duration": 0, "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]);
        self.ask(
            "POST",
            "/actions",
            &json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}),
        );
    }

    pub fn hover(&self, x: f64, y: f64) {
        let (x, y) = (x.round() as i64, y.round() as i64);
        let actions = json!([{"type": "pointerMove", "duration": 0, "x": x, "y": y}]);
        self.ask(
            "POST",
            "/actions",
            &json!({"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]}),
        );
    }

    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// `light` or `dark`.
    pub fn scheme(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// The whole page as PNG, beside the other results of the tests.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let shot =
            self.devtools("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, base64(shot["data"].as_str().unwrap())).unwrap();
        path
    }

    /// Errors and warnings of the console since it was last asked.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.ask("POST", "/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let bad = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        entries.iter().filter(bad).map(|entry| entry["message"].to_string()).collect()
    }

    /// Addresses asked for since it was last asked.
    pub fn requests(&self) -> Vec<String> {
        let entries = self.ask("POST", "/se/log", &json!({"type": "performance"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
            .filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|entry| Some(entry["message"]["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver after it.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for six in text.bytes().filter_map(value) {
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}
