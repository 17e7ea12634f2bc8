//! POSTs a body and says whether trying again may help.

use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::delivery::Failure;
use super::options::host;
use crate::trust;

/// Of a refusal, so much is logged.
const ANSWER: u64 = 300;
/// A receiver that asks for more patience than this gets this.
const MOST_PATIENCE: u64 = 300;

pub(super) struct Client {
    agent: Agent,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(url: String, headers: Vec<(String, String)>, timeout: Duration) -> Self {
        let roots = if url.starts_with("https:") { trust::of_the_machine() } else { RootCerts::WebPki };
        Self::trusting(roots, url, headers, timeout)
    }

    fn trusting(roots: RootCerts, url: String, headers: Vec<(String, String)>, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            // A redirect would take the notification, and its headers, to where nobody sent it.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("observer/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Self { agent: Agent::new_with_config(config), url, headers, timeout }
    }

    /// Within the time of an attempt, or what is `left` when that is less.
    pub(super) fn post(&self, body: &str, left: Option<Duration>) -> Result<(), Failure> {
        let timeout = left.map_or(self.timeout, |left| left.min(self.timeout));
        let mut request = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(timeout.max(Duration::from_millis(1))))
            .build()
            .content_type("application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let host = host(&self.url);
        let mut answer = request
            .send(body)
            .map_err(|error| Failure::again(format!("POST to {host}: {}", without_url(&error))))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = answer.body_mut().with_config().limit(ANSWER).lossy_utf8(true).read_to_string();
        let said = crate::escape::escape(said.unwrap_or_default().trim()).into_owned();
        let text = format!("POST to {host}: {status}{}{said}", if said.is_empty() { "" } else { ": " });
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
            let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
            let after = after.and_then(|seconds| seconds.trim().parse::<u64>().ok());
            let wait = after.map(|seconds| Duration::from_secs(seconds.min(MOST_PATIENCE)));
            return Err(Failure { text, again: true, wait });
        }
        Err(Failure { text, again: false, wait: None })
    }
}

/// Some errors hold the address, which may hold a token.
fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "bad address".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// Answers over TLS for as long as the test runs.
    fn serve(key: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
        let chain = vec![key.cert.der().clone()];
        let private = key.signing_key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(session, stream);
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|read| read > 0) {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        format!("https://localhost:{port}/hook")
    }

    #[test]
    fn an_authority_of_ones_own_is_trusted_and_no_other() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (empty, bundle) = (directory.path().join("empty.pem"), directory.path().join("bundle.pem"));
        std::fs::write(&empty, "no certificate").unwrap();
        std::fs::write(&bundle, key.cert.pem()).unwrap();
        let url = serve(&key);
        let client = |bundles: Vec<PathBuf>| {
            Client::trusting(
                trust::first(bundles.into_iter()),
                url.clone(),
                Vec::new(),
                Duration::from_secs(30),
            )
        };
        client(vec![directory.path().join("nowhere"), empty, bundle]).post("{}", None).unwrap();
        let failure = client(Vec::new()).post("{}", None).unwrap_err();
        assert!(failure.again && !failure.text.contains("hook"), "{failure:?}");
    }
}
