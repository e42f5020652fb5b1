//! The provider's side of the table: a loopback stand-in for Google's OAuth endpoints and Gmail, and
//! the mailbox behind it. `nucleus demo`, the tests and the benchmark use it, nothing else does.
//!
//! It is written to Google's documentation and knows nothing of the client it serves: what it
//! answers, refuses and forgets is what Gmail's pages say, so that a client which only works here
//! would be a surprise. Everything in it is made up, its tokens included, except for a person's own
//! mbox file.
//!
//! - [`mailbox`]: Gmail's state: messages, labels, the history log and what is still kept of it.
//! - [`arrival`]: a message on its way in, and what is read off it.
//! - [`generate`] and [`letters`], with `odd_letters`: a realistic mailbox out of a seed, and cheap
//!   mail for benchmarks.
//! - [`mbox`]: a person's own mail as that state.
//! - [`google`]: the server, its controls and its request log.
//! - `routes`: its paths.
//! - [`gmail_api`], with `history_api`, `page_token` and [`payload`]: what Gmail answers, a
//!   mailbox given.
//! - `authorization` and `page`: the authorization endpoint and what a person sees of it.
//! - [`person`]: the person at the consent page, where there is no browser.
//! - [`grants`]: the token endpoint: codes, refresh, revoke, what each access token opens.
//! - [`quota`]: the units a user may spend in a minute.
//! - [`faults`]: everything that may go wrong, by script or by chance.
//! - [`wire`]: whole and broken answers on the connection.

pub mod arrival;
mod authorization;
pub mod faults;
pub mod generate;
pub mod gmail_api;
pub mod google;
pub mod grants;
mod history_api;
pub mod letters;
pub mod mailbox;
pub mod mbox;
mod odd_letters;
mod page;
mod page_token;
pub mod payload;
pub mod person;
pub mod quota;
mod routes;
pub mod wire;

pub use arrival::{Arrival, Raw};
pub use faults::{Fault, Match, Method};
pub use google::{Options, RequestLog, StandIn};
pub use mailbox::{LedgerEntry, Mailbox};
pub use person::{Consent, DeadEnd};
pub use quota::{QuotaEnforcement, RefusalStyle, cost};
