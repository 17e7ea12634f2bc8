//! A board with a simulated service on it, and a web server in front of it, on a free port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use observer::board::{Board, TargetState};
use observer::diagnose::{History, diagnose};
use observer::tell::alert::{self, Alerts};
use observer::tell::metrics::Metrics;
use observer::tell::web::{Options, Server, Shown, listen};
use observer::timeline::Timeline;

use crate::simulate::cases;
use crate::simulate::service::{Run, Service};

/// Unix seconds of the first sample.
pub const BEGAN: f64 = 1_780_000_000.0;

/// The design's story: requests that wait for ever for a reader.
pub fn leaking() -> Run {
    Service::run(&cases::story().service, 1)
}

/// What is known of a service after its run.
pub fn state(name: &str, run: &Run) -> TargetState {
    let (mut history, mut timeline) = (History::new(), Timeline::default());
    for sample in &run.samples {
        history.push(sample.clone());
        timeline.push(BEGAN + sample.at_seconds, sample);
    }
    let last = run.samples.last().unwrap();
    TargetState {
        name: name.to_owned(),
        up: true,
        info: run.target.clone(),
        first_seen: BEGAN,
        last_sampled: BEGAN + last.at_seconds,
        restarts: 0,
        interval_seconds: 1.0,
        sample: Arc::new(last.clone()),
        diagnosis: Arc::new(diagnose(&history, &run.target)),
        timeline: Arc::new(Mutex::new(timeline)),
    }
}

pub fn shown() -> Arc<Shown> {
    let board = Arc::new(Board::default());
    board.publish(state("checkout", &leaking()));
    board.set_ready(true);
    let metrics = Arc::new(Metrics::new(Arc::clone(&board)));
    let rules = alert::Rules { leak_for: Duration::ZERO, startup: Duration::ZERO, ..alert::Rules::default() };
    let alerts = Arc::new(Alerts::new(alert::Options { rules, ..alert::Options::default() }).unwrap());
    alerts.tick(BEGAN + 60.0, &board);
    Arc::new(Shown { board, metrics, alerts, external_url: "http://observer.example:9713".to_owned() })
}

/// A server, and where it is.
pub struct Site {
    pub shown: Arc<Shown>,
    pub address: SocketAddr,
    pub server: Option<Server>,
}

impl Site {
    pub fn start(change: impl FnOnce(&mut Options)) -> Self {
        let shown = shown();
        let listener = listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut options = Options { listeners: vec![listener], ..Options::default() };
        change(&mut options);
        let server = Server::start(options, Arc::clone(&shown)).unwrap();
        Self { shown, address, server: Some(server) }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request(method, path, headers).as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        Answer::read(&all)
    }

    pub fn stop(mut self) {
        self.server.take().unwrap().stop();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text += "Host: localhost\r\n";
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + "Connection: close\r\n\r\n"
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Of a connection that was closed after it.
    pub fn read(all: &[u8]) -> Self {
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("no end of the headers");
        let head = std::str::from_utf8(&all[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: all[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = dechunked(&answer.body);
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
