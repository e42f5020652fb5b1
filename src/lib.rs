//! The library behind the `nucleus` binary.
pub mod domain;
