//! Who may ask.
//!
//! On loopback without TLS any web page that a browser on this machine has open could reach us under a name of its own
//! that resolves to 127.0.0.1 (DNS rebinding), and would be same-origin. So a request over a loopback address must name
//! us by an address, as `localhost`, by this machine's name or by the host of `--web.external-url`. Nothing reads
//! across origins: no CORS header is ever sent.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::Response;

use super::refusal;

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    /// Our end of it.
    pub(crate) local: SocketAddr,
    pub(crate) tls: bool,
}

/// Whom we answer.
pub(crate) struct Gate {
    /// Names of ours beside `localhost`, in lower case.
    names: Vec<String>,
}

impl Gate {
    pub(crate) fn new(external_url: &str) -> Self {
        let mut names = Vec::new();
        if let Some((_, rest)) = external_url.split_once("://") {
            names.push(host(rest.split('/').next().unwrap_or_default()).to_ascii_lowercase());
        }
        if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
            names.push(name.trim().to_ascii_lowercase());
        }
        names.retain(|name| !name.is_empty());
        Self { names }
    }

    /// Whether a page of somebody else's could not have this as its host.
    fn is_ours(&self, asked: &str) -> bool {
        let asked = host(asked).trim_end_matches('.').to_ascii_lowercase();
        let address = asked.strip_prefix('[').and_then(|asked| asked.strip_suffix(']')).unwrap_or(&asked);
        address.parse::<IpAddr>().is_ok()
            || asked == "localhost"
            || asked.ends_with(".localhost")
            || self.names.contains(&asked)
    }
}

/// Without the port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

pub(crate) async fn admitted(
    State(gate): State<Arc<Gate>>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    // No browser leaves it out.
    if let Some(asked) = request.headers().get(HOST)
        && connection.local.ip().to_canonical().is_loopback()
        && !connection.tls
        && !asked.to_str().is_ok_and(|asked| gate.is_ours(asked))
    {
        return refusal(
            path,
            StatusCode::MISDIRECTED_REQUEST,
            "this server is not known by that host name: use localhost or an address, or name it with --web.external-url",
        );
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours() {
        let gate = Gate::new("https://Observer.example.com:8443/base");
        for ours in [
            "localhost",
            "LOCALHOST:9713",
            "a.localhost",
            "127.0.0.1",
            "127.0.0.1:9713",
            "[::1]:9713",
            "[::1]",
            "10.1.2.3:80",
            "observer.example.com",
            "observer.example.com.:9713",
        ] {
            assert!(gate.is_ours(ours), "{ours}");
        }
        for other in
            ["evil.example", "127.0.0.1.evil.example:9713", "localhost.evil.example", "", ":", "[::1", "a:b"]
        {
            assert!(!gate.is_ours(other), "{other}");
        }
    }
}
