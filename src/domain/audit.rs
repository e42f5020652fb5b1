//! The words of the audit log: who did what, through which interface.
//!
//! Whose word something is done at goes with the work: [`Origin::scope`] says it where a request or a
//! command comes in, [`Origin::current`] is read where it is written down. Whatever is given away to a
//! task of its own takes it along: `origin.scope(work)`.

use std::{fmt, future::Future, net::IpAddr};

use serde::Serialize;
use tokio::task::futures::TaskLocalFuture;
use utoipa::ToSchema;
use uuid::Uuid;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditActor)]
pub enum Actor {
    /// The operator, by key or at the command line.
    Operator,
    /// An entity, by its key.
    Entity,
    /// A person at a browser, by the cookie of an OAuth flow.
    Person,
    /// The program itself, by the clock or for a run.
    System,
}

impl Actor {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Entity => "entity",
            Self::Person => "person",
            Self::System => "system",
        }
    }
}

/// Where an act comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditInterface)]
pub enum Interface {
    /// A request to the API.
    Api,
    /// A command.
    Cli,
    /// A worker carries a run out.
    Worker,
    /// The scheduler's pass.
    Scheduler,
}

impl Interface {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Cli => "cli",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A version of a secret is read.
    SecretRead,
    /// A version of a secret is written.
    SecretWrite,
    /// A version of a secret is destroyed.
    SecretDestroy,
    /// A secret is removed with all its versions.
    SecretDelete,
    /// An API key is made.
    KeyCreate,
    /// An API key is revoked.
    KeyRevoke,
    /// An entity is made.
    EntityCreate,
    /// The removal of an entity begins; what is its own is ended and removed one after the other.
    EntityRemovalBegin,
    /// An entity is removed with everything that is its own.
    EntityRemove,
    /// An integration is made of given credentials.
    IntegrationCreate,
    /// An integration is connected, or connected again, by OAuth.
    IntegrationConnect,
    /// An integration's names, settings or status are changed.
    IntegrationChange,
    /// An integration is given other credentials.
    CredentialsReplace,
    /// An integration is switched off and its runs are cancelled, because its access is ended.
    IntegrationDisconnect,
    /// An integration is removed.
    IntegrationRemove,
    /// A grant is revoked at its service.
    GrantRevoke,
    /// An OAuth flow is begun for an entity.
    OAuthStart,
    /// The operator agrees that a sync may erase many records at once.
    MassDeletionConfirm,
    /// The end of a run is asked for.
    RunCancel,
    /// An import of files begins.
    ImportBegin,
    /// What was parked is asked for again.
    DeadLetterRedrive,
    /// The vault's key is replaced.
    VaultRotate,
    /// A topic or a subscription is made.
    BrokerCreate,
}

impl Action {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretRead => "secret.read",
            Self::SecretWrite => "secret.write",
            Self::SecretDestroy => "secret.destroy",
            Self::SecretDelete => "secret.delete",
            Self::KeyCreate => "key.create",
            Self::KeyRevoke => "key.revoke",
            Self::EntityCreate => "entity.create",
            Self::EntityRemovalBegin => "entity.removal_begin",
            Self::EntityRemove => "entity.remove",
            Self::IntegrationCreate => "integration.create",
            Self::IntegrationConnect => "integration.connect",
            Self::IntegrationChange => "integration.change",
            Self::CredentialsReplace => "integration.replace_credentials",
            Self::IntegrationDisconnect => "integration.disconnect",
            Self::IntegrationRemove => "integration.remove",
            Self::GrantRevoke => "grant.revoke",
            Self::OAuthStart => "oauth.start",
            Self::MassDeletionConfirm => "mass_deletion.confirm",
            Self::RunCancel => "run.cancel",
            Self::ImportBegin => "import.begin",
            Self::DeadLetterRedrive => "dead_letter.redrive",
            Self::VaultRotate => "vault.rotate",
            Self::BrokerCreate => "broker.create",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is about to be done, outside the database; another row says how it ended. Where none does,
    /// it is not known.
    Attempt,
    /// It was done.
    Success,
    /// It was not done.
    Failure,
}

impl Outcome {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// At whose word something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who acts.
    pub actor: Actor,
    /// The API key, where it is one that is kept.
    pub key_id: Option<Uuid>,
    /// The request's id, at most 64 characters.
    pub request_id: Option<String>,
    /// Where it came in.
    pub interface: Interface,
    /// The client's address.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// The program itself.
    pub fn system(interface: Interface) -> Self {
        Self {
            actor: Actor::System,
            key_id: None,
            request_id: None,
            interface,
            address: None,
        }
    }

    /// The operator at the command line.
    pub fn command() -> Self {
        Self {
            actor: Actor::Operator,
            interface: Interface::Cli,
            ..Self::system(Interface::Cli)
        }
    }

    /// At whose word the current work is done: a worker's own, unless a request, a command or the
    /// scheduler has said otherwise.
    pub fn current() -> Self {
        let said = ORIGIN.try_with(Clone::clone);
        said.unwrap_or_else(|_| Self::system(Interface::Worker))
    }

    /// `work` as done at this word.
    pub fn scope<W: Future>(self, work: W) -> TaskLocalFuture<Self, W> {
        ORIGIN.scope(self, work)
    }
}
