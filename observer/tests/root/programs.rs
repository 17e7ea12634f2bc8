//! The programs that the tests with root run: targets in C and Go, observer as a daemon, and those of others that it is
//! used with.

pub mod another_user;
pub mod browser;
pub mod c;
pub mod checkout;
pub mod daemon;
pub mod dashboard;
pub mod go;
pub mod monitoring;
