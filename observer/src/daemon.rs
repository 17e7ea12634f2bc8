//! The daemon: who is started and ended in which order, and the loop that joins them.
//!
//! One thread a target, one that discovers, one that drains the kernel, one that serves, one for each receiver of
//! alerts, one that writes to disk. None waits for another: they meet at the board.

mod discover;
mod drain;
mod follow;
pub mod name;
mod roster;
pub mod rules;
