//! Importing mail from files into an integration that syncs e-mail.
//!
//! An import is a run as a sync is one: it holds a lease, its counts and events are written with its
//! batches, it can be watched and cancelled. But the process that has the file carries it out, it calls
//! nobody, and what it reads is older than what the service says: it adds, and changes nothing.

use std::{io, path::PathBuf};

use crate::{
    db::DbError,
    domain::{
        ServiceName,
        sync::{Counts, Run},
    },
};

mod eml;
mod files;
pub mod labels;
pub mod mbox;
mod pipeline;
mod record;
mod run;
mod separator;
pub mod takeout;

pub use files::Place;
pub use run::{Import, import};

/// What is imported.
#[derive(Debug, Clone)]
pub enum Input {
    /// Mailboxes, one after the other.
    Mbox(Vec<Place>),
    /// A folder of messages.
    Folder(PathBuf),
}

/// Who watches an import.
pub trait Watcher: Send + Sync {
    /// It waits until this run of the integration has ended.
    fn waits_for(&self, run: &Run);

    /// It goes on at a place of so many bytes; how many is not known of a pipe.
    fn begins(&self, name: &str, bytes: Option<u64>);

    /// A file was imported up to here before, in bytes as they are unpacked.
    fn goes_on_from(&self, offset: u64);

    /// So many bytes of the place are read, and the run has come so far.
    fn moved(&self, bytes: u64, counts: &Counts);
}

/// Why nothing was imported, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no such integration.
    #[error("there is no such integration: GET /integrations lists those there are")]
    UnknownIntegration,
    /// It does not hold e-mail.
    #[error("the integration is one of {0}, which gives no e-mail")]
    NoMail(ServiceName),
    /// Something cannot be read.
    #[error("cannot read {name}")]
    Read {
        /// What.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no mailbox.
    #[error("{name}")]
    NotMbox {
        /// Which.
        name: String,
        /// What was expected.
        #[source]
        source: mbox::MboxError,
    },
    /// It was interrupted before its run began.
    #[error("interrupted before anything was imported")]
    NotBegun,
    /// The run is not this process's any more.
    #[error(
        "the run was ended elsewhere, because nothing was heard of this process for 30 seconds or the integration was removed; the same command goes on where it stopped"
    )]
    Lost,
    /// The store did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A bug of ours.
    #[error("the reader failed: {0}")]
    Panicked(String),
}
