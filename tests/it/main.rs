//! The one integration test binary: the program as a whole, on real parts.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on should stop, and real clocks and clients are its business"
)]

mod api;
mod audit_command;
mod backends;
mod broker;
mod browser;
mod canaries;
mod chaos;
mod child;
mod clocks;
mod commands;
mod connecting;
mod connector_contract;
mod consent_page;
mod contract;
mod dashboards;
mod db;
mod delivery;
mod disconnecting;
mod doctor;
mod doubles;
mod emulator;
mod ending;
mod examples;
mod github;
mod harness;
mod hostile_html;
mod hostile_mail;
mod importing;
mod kills;
mod logs;
mod metrics;
mod mistakes;
mod network;
mod outages;
mod pages;
mod papers;
mod port;
mod postgres;
mod postgres_server;
mod provider_trouble;
mod queue;
mod quota;
mod readme;
mod real_mail;
mod refreshes;
mod relaying;
mod removal;
mod repeats;
mod request_lines;
mod resync;
mod schemas;
mod schemathesis;
mod secret_stores;
mod secret_types;
mod slow_clients;
mod standing;
mod store;
mod syncing;
mod tail;
mod takeover;
mod test_clock;
mod tidy;
mod tokens;
mod traces;
mod unconfirmed;
mod vault_rotation;
mod waiting;
