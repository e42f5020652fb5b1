//! The library behind the `nucleus` binary, in reading order.

pub mod api;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod connect;
pub mod connectors;
pub mod db;
pub mod demo;
pub mod domain;
pub mod import;
pub mod integrations;
pub mod keys;
pub mod loops;
pub mod metrics;
pub mod oauth;
pub mod providers;
pub mod queue;
pub mod secrets;
pub mod sync;
pub mod telemetry;
pub mod traces;
pub mod worker;
