//! What a pod finds in its network: a name server, and an Alertmanager that keeps what it is told.
//!
//! Two threads that have gone over into the pod's network namespace.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// As observer is told it; the name server's search domain makes it whole.
pub const URL: &str = "http://alertmanager:9093";
const NAME: &str = "alertmanager.shop.svc.cluster.local";
const ADDRESS: [u8; 4] = [127, 0, 0, 9];
/// Longest request that is read.
const MOST: usize = 1 << 20;
const POLL: Duration = Duration::from_millis(200);

pub struct Alertmanager {
    told: Receiver<Value>,
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Alertmanager {
    /// In the network namespace of a process.
    pub fn beside(pid: u32) -> Result<Self> {
        let (tell, told) = channel();
        let (ready, is_ready) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (end, names) = (Arc::clone(&ended), Arc::clone(&asked));
        thread::spawn(move || {
            let bound = enter(pid);
            match bound {
                Ok((names_socket, listener)) => {
                    let _ = ready.send(Ok(()));
                    let at_end = Arc::clone(&end);
                    let listening = thread::spawn(move || listen(&listener, &tell, &at_end));
                    answer_names(&names_socket, &names, &end);
                    let _ = listening.join();
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        is_ready.recv().context("the receiver's thread ended")??;
        Ok(Self { told, asked, ended })
    }

    /// The next alert that came, if one did.
    pub fn next(&self) -> Option<Value> {
        self.told.try_recv().ok()
    }

    /// What names were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn enter(pid: u32) -> Result<(UdpSocket, TcpListener)> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context("the pod's network")?;
    // Of this thread only, and of those that it starts.
    setns(&namespace, CloneFlags::CLONE_NEWNET).context("entering the pod's network")?;
    let names = UdpSocket::bind("127.0.0.1:53").context("the name server")?;
    names.set_read_timeout(Some(POLL))?;
    let listener = TcpListener::bind((std::net::Ipv4Addr::from(ADDRESS), 9093)).context("Alertmanager")?;
    listener.set_nonblocking(true)?;
    Ok((names, listener))
}

fn listen(listener: &TcpListener, tell: &Sender<Value>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(Value::Array(alerts)) = take(stream) {
                    alerts.into_iter().for_each(|alert| drop(tell.send(alert)));
                }
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// One request's body.
fn take(mut stream: TcpStream) -> Option<Value> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
            });
            if body.len() >= length? {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                return serde_json::from_str(body).ok();
            }
        }
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0 && request.len() < MOST)?;
        request.extend_from_slice(&chunk[..read]);
    }
}

/// Knows one name, of one kind.
fn answer_names(socket: &UdpSocket, asked: &Mutex<Vec<String>>, ended: &AtomicBool) {
    let mut packet = [0; 512];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
        let Some((name, kind, end)) = question(&packet[..length]) else { continue };
        let known = name == NAME;
        let answered = known && kind == 1;
        let mut answer = packet[..2].to_vec();
        answer.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(answered), 0, 0, 0, 0]);
        answer.extend(&packet[12..end]);
        if answered {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            answer.extend(ADDRESS);
        }
        let _ = socket.send_to(&answer, from);
        if let Ok(mut asked) = asked.lock() {
            asked.push(name);
        }
    }
}

/// Name and kind of the first question, and where it ends.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).into_owned());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    (packet.len() >= at + 4).then(|| (labels.join("."), kind, at + 4))
}
