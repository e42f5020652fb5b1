//! The library behind the `nucleus` binary.
pub mod db;
pub mod domain;
