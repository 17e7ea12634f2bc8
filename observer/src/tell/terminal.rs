//! What `attach` shows while it watches: a full-screen view on a terminal, plain lines elsewhere.
//!
//! Told of samples and of the diagnosis so far; keeps a bounded series of memory figures and of group sizes. Whoever
//! samples never waits for drawing or for keys: the screen has a thread of its own.

mod draw;
mod log;
mod plain;
mod progress;
mod rates;
mod rows;
mod screen;
mod stack;
mod view;

pub use draw::draw;
pub use plain::Plain;
pub use progress::Progress;
pub use screen::Screen;
pub use view::{Action, View};
