//! A small HTTP server on loopback that keeps what it is sent, for tests of those who send.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything should take, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Listener {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<(String, String)>>>,
    /// Of a silent one: open as long as this lives.
    _open: Option<TcpListener>,
}

impl Listener {
    /// Answers each request, by its number, with a status.
    pub fn start(answer: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (kept, number, answer) = (Arc::clone(&requests), Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, number, answer) = (Arc::clone(&kept), Arc::clone(&number), Arc::clone(&answer));
                thread::spawn(move || {
                    serve(&stream, &kept, || answer(number.fetch_add(1, Ordering::Relaxed)))
                });
            }
        });
        Self { address, requests, _open: None }
    }

    /// Takes connections (the kernel does) and never answers.
    pub fn silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, requests: Arc::default(), _open: Some(listener) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// In the order they came.
    pub fn bodies(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(_, body)| serde_json::from_str(body).expect("a JSON body")).collect()
    }

    pub fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<(String, String)>>, answer: impl Fn() -> u16) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let path = first.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        kept.lock().unwrap().push((path, String::from_utf8(body).ok()?));
        let status = answer();
        write!(&*stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

/// Waits until it is so.
#[track_caller]
pub fn eventually(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it never came to pass that {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
