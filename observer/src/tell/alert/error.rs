//! What can be wrong with what is said of alerts.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum AlertError {
    #[error("alert rule {name}: {value} is not {wanted}")]
    Number { name: &'static str, value: f64, wanted: &'static str },
    #[error("alert receiver {0:?}: give each a name of its own")]
    Name(String),
    #[error("alert receiver {receiver}: {name} is too short; give at least a second")]
    Interval { receiver: String, name: &'static str },
    #[error("address of {of}: {what} (like http://host:port/path)")]
    Url { of: String, what: &'static str },
    #[error("alert receiver {receiver}: header {header:?} or its value may not be sent by HTTP")]
    Header { receiver: String, header: String },
    #[error("alert receiver {receiver}: label {label:?} is not a name of letters, digits and _")]
    Label { receiver: String, label: String },
    #[error("alert receiver {receiver}: its template is wrong: {what}")]
    Template { receiver: String, what: String },
    #[error("silence of {target:?}: {what}")]
    Silence { target: String, what: String },
    #[error("cannot start a thread for alert receiver {receiver}: {source}")]
    Thread { receiver: String, source: std::io::Error },
}
