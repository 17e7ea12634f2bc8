//! The picture: memory as a line, and beneath it, on the same axes, what the blocked groups hold.
//!
//! Reads points of a timeline and a diagnosis, gives SVG without sizes, colours or script of its own: elements carry
//! classes that the page's style sheet paints, so that one picture serves light and dark. Drawn by plotters; costs a
//! few milliseconds for some hundred points. Total: whatever the numbers are, the picture is well-formed.

mod axis;
mod draw;
mod layers;
mod paint;

pub use axis::clock;
pub use draw::{Size, class, picture, sparkline};
pub use layers::{Kind, Layer, Picture, bytes_per_member, name};
pub use paint::escape;
