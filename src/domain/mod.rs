//! The words of the program: ids, times, and the values that rooms hand to each other.
//!
//! Pure values only: no input or output, no database types, no HTTP types. What is answered derives
//! its description for the OpenAPI document, which says what a value looks like and does nothing.

pub mod address;
pub mod audit;
pub mod clock;
pub mod credential;
pub mod errors;
pub mod event;
pub mod ids;
pub mod message_key;
pub mod quota;
pub mod record;
pub mod service;
pub mod sync;
pub mod time;

pub use clock::{Clock, SystemClock};
pub use credential::CredentialType;
pub use ids::{EntityId, EventId, IntegrationId, RecordId, RunId};
pub use quota::{MAX_FETCH_CONCURRENCY, QuotaTable};
pub use service::ServiceName;
