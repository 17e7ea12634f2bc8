//! The log: one JSON document a line.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::time::Duration;

use super::delivery::{Deliver, Failure};
use super::message::Notification;
use super::options::Log;

pub(super) struct ToLog(pub Log);

impl Deliver for ToLog {
    fn deliver(&mut self, told: &Notification, _left: Option<Duration>) -> Result<(), Failure> {
        let mut line = serde_json::to_string(told).map_err(|error| Failure {
            text: error.to_string(),
            again: false,
            wait: None,
        })?;
        line.push('\n');
        // In one piece, so that lines of two writers do not mix.
        let written = match &self.0 {
            Log::Stdout => io::stdout().lock().write_all(line.as_bytes()).and_then(|()| io::stdout().flush()),
            Log::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Log::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes())),
        };
        written.map_err(|error| {
            let place = match &self.0 {
                Log::Stdout => "standard output".to_owned(),
                Log::Stderr => "standard error".to_owned(),
                Log::File(path) => path.display().to_string(),
            };
            Failure::again(format!("cannot write to {place}: {error}"))
        })
    }
}
