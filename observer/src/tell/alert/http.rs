//! POSTs a body and says whether trying again may help.

use std::time::Duration;

use ureq::Agent;

use super::delivery::Failure;
use super::options::host;

/// Of a refusal, so much is logged.
const ANSWER: u64 = 300;
/// A receiver that asks for more patience than this gets this.
const MOST_PATIENCE: u64 = 300;

pub struct Client {
    agent: Agent,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

impl Client {
    pub fn new(url: String, headers: Vec<(String, String)>, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            // A redirect would take the notification, and its headers, to where nobody sent it.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("observer/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: Agent::new_with_config(config), url, headers, timeout }
    }

    /// Within the time of an attempt, or what is `left` when that is less.
    pub fn post(&self, body: &str, left: Option<Duration>) -> Result<(), Failure> {
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
        let said = crate::tell::report::escape::escape(said.unwrap_or_default().trim()).into_owned();
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
