//! What systemd and a service agree on: sockets it opened for us, and how we are.
//!
//! Reads `LISTEN_FDS`, `NOTIFY_SOCKET` and `WATCHDOG_USEC`; does nothing where they are not set. Call [`listeners`]
//! once, before there are threads: it takes the variables away, so that no child of ours believes them.

use std::env;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdError {
    #[error(
        "socket {name} passed by systemd cannot be served: {reason} (the .socket unit needs ListenStream=host:port)"
    )]
    Socket { name: String, reason: String },
    #[error(
        "socket {name} passed by systemd is one connection, not a listener (the .socket unit needs Accept=no)"
    )]
    Connected { name: String },
}

/// The sockets that systemd listens on for us; none where it does not.
pub(crate) fn listeners() -> Result<Vec<TcpListener>, SystemdError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(passed.len());
    for place in 0..passed.len() {
        let name = || match names.get(place) {
            Some(name) if !name.is_empty() => format!("{} ({:?})", place + 1, name),
            _ => (place + 1).to_string(),
        };
        let wrong = |reason: String| SystemdError::Socket { name: name(), reason };
        let listener = passed
            .take_tcp_listener(place)
            .map_err(|error| wrong(error.to_string()))?
            .ok_or_else(|| wrong("it is gone".to_owned()))?;
        listeners.push(listening(listener).ok_or_else(|| SystemdError::Connected { name: name() })?);
    }
    Ok(listeners)
}

/// Not a connection, as it would be with `Accept=yes`: a listener has no peer.
fn listening(listener: TcpListener) -> Option<TcpListener> {
    let stream = TcpStream::from(OwnedFd::from(listener));
    match stream.peer_addr() {
        Ok(_) => None,
        Err(_) => Some(TcpListener::from(OwnedFd::from(stream))),
    }
}

/// Started, and observing or waiting for what to observe.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// Reading the configuration anew, until [`reloaded`].
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // Without the time the service manager would take it for a failure.
        Err(error) => tracing::debug!("not telling the service manager of the reload: {error}"),
    }
}

/// Whether it was taken or not: a service that stays silent is ended for it.
pub(crate) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often [`alive`] must be said, where the service manager watches: half of what it waits.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|most| (most / 2).max(Duration::from_millis(1)))
}

/// The loop that matters goes on. To be said by that loop and by nobody else.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}

/// What a status says must not become a message of its own.
fn line(status: &str) -> String {
    status.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
