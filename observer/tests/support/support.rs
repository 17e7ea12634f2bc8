//! What the tests of both rings use: observer as a program, targets on a board, and who is told.

pub mod dashboard;
pub mod listener;
pub mod observer;
pub mod scenes;
pub mod shown;
pub mod told;
