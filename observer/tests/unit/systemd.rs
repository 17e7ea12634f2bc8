//! The daemon as systemd starts it: sockets handed over, ready, reloading, alive, stopping.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::observer::run;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `observer run`, with a socket as its first, where one is.
fn command(socket: Option<OwnedFd>) -> Command {
    let mut command = Command::new("sh");
    // Only the process itself knows its pid before it runs: exec keeps it.
    let script = match socket {
        Some(_) => "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$@\"",
        None => "exec \"$@\"",
    };
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_observer")]);
    command.args(["run", "--no-ebpf", "--comm", "no-such-process"]);
    command
        .stdin(socket.map_or(Stdio::null(), Stdio::from))
        .env_remove("NOTIFY_SOCKET")
        .env_remove("RUST_LOG");
    command
}

struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn new(directory: &Path) -> Self {
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message that has this line.
    fn told(&self, line: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let mut bytes = [0; 4096];
            let length = self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("not told {line}: {error}"));
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            if text.lines().any(|told| told == line) {
                return text;
            }
        }
        panic!("not told {line}");
    }
}

fn answer(listener: &TcpListener, path: &str) -> String {
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_unit_with_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::new(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command(Some(listener.try_clone().unwrap().into()));
    command.env("NOTIFY_SOCKET", directory.path().join("notify")).env("WATCHDOG_USEC", "400000");
    let mut daemon = Daemon(command.spawn().unwrap());
    let told = manager.told("READY=1");
    let address = listener.local_addr().unwrap().to_string();
    assert!(told.lines().any(|line| line.starts_with("STATUS=") && line.contains(&address)), "{told}");
    assert!(answer(&listener, "/readyz").starts_with("HTTP/1.1 200"));
    manager.told("WATCHDOG=1");
    manager.told("WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    let told = manager.told("RELOADING=1");
    assert!(told.contains("MONOTONIC_USEC="), "newer managers end a service that does not say when: {told}");
    manager.told("READY=1");
    daemon.signal(Signal::SIGTERM);
    manager.told("STOPPING=1");
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
}

#[test]
fn sockets_that_cannot_be_served_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let local = UnixListener::bind(directory.path().join("x")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for (socket, words) in [
        (OwnedFd::from(local), &["1 (\"web\")", "ListenStream"][..]),
        (OwnedFd::from(connected), &["1 (\"web\")", "Accept=no"][..]),
    ] {
        run(&mut command(Some(socket))).refused(1, words);
    }
}
