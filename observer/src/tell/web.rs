//! What a browser, a scraper and a program see of observer: one HTTP server over the board.
//!
//! Reads the board, gives answers; nothing here can hold up sampling. What a stranger may cost is in [`limits`], who
//! may ask in [`auth`].

pub(crate) mod api;
pub(crate) mod auth;
pub mod chart;
pub(crate) mod documents;
pub(crate) mod limits;
pub mod page;
pub(crate) mod profiles;
mod reader;
mod refusal;
mod routes;
pub mod schema;
pub(crate) mod server;
mod shown;
pub(crate) mod tls;
pub mod web_config;

pub use server::{Options, ServeError, Server, listen, serve};
pub use shown::{Shown, TELEMETRY_PATH};
