//! The one integration test binary: the program as a whole, on real parts.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod db;
mod harness;
mod papers;
mod store;
mod syncing;
mod tidy;
