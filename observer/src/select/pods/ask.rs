//! Asks for the list of pods, over and over, in a thread of its own.
//!
//! A failure is told once, and tried again ever less often; what was known holds meanwhile.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::known::{Options, Pod, Pods};
use super::list::List;

use crate::escape::escape;
use crate::trust;

/// Between two requests, whoever is waiting.
const LEAST: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A kubelet sends some 20 kB a pod.
const ANSWER: u64 = 64 << 20;
/// Of a refusal.
const STATUS: u64 = 16 << 10;
const TOKEN: u64 = 64 << 10;
/// The API server then sends only the metadata; a kubelet does not mind.
const ACCEPT: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json;q=0.9";

/// It ends with `pods`, or hangs within a request and holds nothing.
pub(super) fn start(options: Options, pods: &Arc<Pods>, woken: Receiver<()>) -> Result<()> {
    let pods = Arc::downgrade(pods);
    let run = move || run(&options, &pods, &woken);
    thread::Builder::new()
        .name("pods".to_owned())
        .spawn(run)
        .context("starting the thread that asks for pods")?;
    Ok(())
}

fn run(options: &Options, pods: &Weak<Pods>, woken: &Receiver<()>) {
    let mut failures = 0;
    loop {
        let answer = ask(options);
        let Some(pods) = pods.upgrade() else { return };
        match answer {
            Ok(list) => {
                if pods.trouble().is_some() {
                    tracing::info!(pods = list.len(), "the node's pods are known again");
                }
                failures = 0;
                pods.take(list);
            }
            Err(error) => {
                let trouble = format!("{error:#}");
                if pods.fail(trouble.clone()) {
                    tracing::warn!("the node's pods are not known: {trouble}");
                }
                failures += 1;
            }
        }
        drop(pods);
        if failures > 0 {
            // Whoever waits for the list would only press who is in trouble.
            thread::sleep(LEAST.saturating_mul(1 << failures.min(10)).min(options.every));
            continue;
        }
        thread::sleep(LEAST);
        if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(options.every - LEAST) {
            return;
        }
    }
}

fn ask(options: &Options) -> Result<std::collections::HashMap<String, Arc<Pod>>> {
    let secure = options.url.starts_with("https:");
    let mut tls = TlsConfig::builder();
    tls = match &options.ca_file {
        // Read anew each time: authorities are replaced, too.
        Some(path) if secure => {
            let certificates = trust::certificates(path).with_context(|| {
                format!("{} (kubernetes.ca_file; insecure_skip_verify to do without)", path.display())
            })?;
            tls.root_certs(RootCerts::new_with_certs(&certificates))
        }
        Some(_) => tls,
        None => tls.disable_verification(true),
    };
    let config = Agent::config_builder()
        // Neither a redirect nor a proxy is to see the token.
        .max_redirects(0)
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("observer/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build();
    let mut request = Agent::new_with_config(config).get(&options.url).header("accept", ACCEPT);
    // Not in the clear.
    if secure {
        request = request.header("authorization", format!("Bearer {}", token(&options.token_file)?));
    }
    let place = options.url.split('?').next().unwrap_or_default();
    let mut answer = request.call().with_context(|| format!("GET {place}"))?;
    let status = answer.status();
    let body = answer.body_mut().with_config();
    if !status.is_success() {
        let said = body.limit(STATUS).lossy_utf8(true).read_to_string().unwrap_or_default();
        let remedy = match status.as_u16() {
            401 => " (is the token of a service account of this cluster?)",
            403 => " (deploy/kubernetes/overlays/labels has the role that it takes)",
            _ => "",
        };
        bail!("GET {place}: {status}: {}{remedy}", why(&said));
    }
    let list: List = body.limit(ANSWER).read_json().with_context(|| format!("GET {place}"))?;
    list.pods().map_err(|error| anyhow::anyhow!("GET {place}: {error}"))
}

/// What a `v1.Status` says, else the beginning of whatever it is.
fn why(said: &str) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let message =
        serde_json::from_str::<Status>(said).map_or_else(|_| said.trim().to_owned(), |it| it.message);
    escape(&message.chars().take(300).collect::<String>()).into_owned()
}

fn token(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN).read_to_string(&mut text))
        .with_context(|| format!("{} (kubernetes.token_file: is the token mounted?)", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with this, and gives what was asked.
    fn server(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        (format!("http://{address}/api/v1/pods?fieldSelector=spec.nodeName%3Dnode"), asked)
    }

    fn options(url: String) -> Options {
        Options { url, token_file: "/nowhere".into(), ca_file: None, every: Duration::from_secs(30) }
    }

    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        let (url, asked) = server(
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 54\r\n\r\n{\"kind\":\"Status\",\"message\":\"pods is forbidden: \\u001b[31m\"}",
        );
        let error = format!("{:#}", ask(&options(url)).unwrap_err());
        let asked = asked.join().unwrap();
        assert!(asked.contains("as=PartialObjectMetadataList") && !asked.contains("Bearer"), "{asked}");
        assert!(error.contains("403 Forbidden: ") && error.contains("overlays/labels"), "{error}");
        assert!(!error.contains('\u{1b}') && !error.contains('?'), "{error}");
    }

    #[test]
    fn the_token_goes_only_where_it_is_safe() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "secret\n").unwrap();
        let (url, asked) =
            server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        let error = ask(&Options { token_file: secret.path().into(), ..options(url) }).unwrap_err();
        assert!(!asked.join().unwrap().contains("secret"));
        assert!(format!("{error:#}").contains("302"), "{error:#}");
        assert_eq!(token(secret.path()).unwrap(), "secret");
        assert!(format!("{:#}", token(Path::new("/nowhere")).unwrap_err()).contains("is the token mounted"));
    }
}
