//! The one integration test binary: the program as a whole, on real parts.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on should stop, and real clocks and clients are its business"
)]

mod api;
mod child;
mod commands;
mod db;
mod harness;
mod kills;
mod logs;
mod mistakes;
mod papers;
mod store;
mod syncing;
mod takeover;
mod tidy;
