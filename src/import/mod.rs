//! Importing mail from files.

pub mod labels;
pub mod mbox;
mod separator;
pub mod takeout;
