//! The one integration test binary: the program as a whole, on real parts.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod harness;
mod syncing;
