//! `GET /audit`: who did what with secrets and by administration; and which operation is written down.

use std::sync::Arc;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    List,
    caller::Caller,
    error::ApiError,
    extract::{Paging, Query, encode_id},
};
use crate::{
    app::App,
    db::audit_log::{self, AuditId, AuditRow},
    domain::{
        EntityId,
        audit::{Action, Actor, Interface},
        sync::Scope,
        time,
    },
};

/// The operations that are written down, and as what, if they do it. Beside these, whatever an operation does with
/// credentials is written down where it is done.
pub(super) const AUDITED: &[(&str, &[Action])] = &[
    ("create_entity", &[Action::EntityCreate]),
    (
        "delete_entity",
        &[
            Action::EntityRemovalBegin,
            Action::IntegrationDisconnect,
            Action::GrantRevoke,
            Action::IntegrationRemove,
            Action::EntityRemove,
        ],
    ),
    ("create_integration", &[Action::IntegrationCreate]),
    (
        "change_integration",
        &[Action::IntegrationChange, Action::CredentialsReplace],
    ),
    (
        "delete_integration",
        &[
            Action::IntegrationDisconnect,
            Action::GrantRevoke,
            Action::IntegrationRemove,
        ],
    ),
    ("test_integration", &[Action::IntegrationChange]),
    ("sync_integration", &[Action::MassDeletionConfirm]),
    ("cancel_run", &[Action::RunCancel]),
    ("start_oauth", &[Action::OAuthStart]),
    ("finish_oauth", &[Action::IntegrationConnect]),
    ("oauth_callback", &[Action::IntegrationConnect]),
];

/// The operations that are not: they only look.
#[cfg(test)]
const NOT_AUDITED: &[&str] = &[
    "audit",
    "docs",
    "docs_file",
    "get_integration",
    "get_record",
    "get_run",
    "health",
    "list_entities",
    "list_events",
    "list_integrations",
    "list_records",
    "list_runs",
    "list_services",
    "livez",
    "metrics",
    "openapi",
    "readyz",
    "stream_run",
];

/// An act, or an attempt at one.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct Shown {
    /// Its id.
    #[schema(value_type = Uuid)]
    id: AuditId,
    /// When.
    #[serde(serialize_with = "time::serialize")]
    at: DateTime<Utc>,
    /// Who.
    #[schema(value_type = Actor)]
    actor: String,
    /// The API key it was done with.
    key_id: Option<Uuid>,
    /// Whose it is; null for what is the operator's alone.
    entity_id: Option<EntityId>,
    /// What was done: `secret.read`, `integration.create` and the like.
    action: String,
    /// With what: an id, or where a secret lies. An entity is not told where.
    target: Option<String>,
    /// `success` or `failure`; `attempt` for what is under way or another entry says the end of, and
    /// `unknown` where none does after ten minutes.
    #[schema(value_type = OutcomeShown)]
    outcome: String,
    /// The entry of the attempt that ended so.
    #[schema(value_type = Option<Uuid>)]
    attempt_id: Option<AuditId>,
    /// The request it was done by.
    request_id: Option<String>,
    /// Where it came in.
    #[schema(value_type = Interface)]
    interface: String,
    /// The client's address. An entity is told its own alone.
    address: Option<String>,
    /// The entity's id, or `operator`: entries of a chain hold the hash of the one before.
    chain: String,
    /// Its number in the chain, from 1.
    position: i64,
    /// SHA-256 over the entry and the hash before it, in hex.
    hash: String,
}

/// The outcomes, for the document.
#[derive(ToSchema)]
#[schema(as = AuditOutcome, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes words that the database gives")]
enum OutcomeShown {
    /// It was done.
    Success,
    /// It was not done.
    Failure,
    /// It was about to be done: it is under way, or another entry says how it ended.
    Attempt,
    /// It was about to be done, and nobody knows whether it was.
    Unknown,
}

fn shown(row: AuditRow, to: Scope) -> Shown {
    let to_operator = to == Scope::Operator;
    let is_place = row.action.starts_with("secret.");
    let by_entity = row.actor == Actor::Entity.as_str();
    Shown {
        id: row.id,
        at: row.at,
        actor: row.actor,
        key_id: row.key_id,
        entity_id: row.entity_id,
        action: row.action,
        target: Some(row.target).filter(|_| to_operator || !is_place),
        outcome: row.outcome,
        attempt_id: row.attempt_id,
        request_id: row.request_id,
        interface: row.interface,
        address: row.address.filter(|_| to_operator || by_entity),
        chain: row.chain,
        position: row.position,
        hash: row.hash,
    }
}

/// Read the audit log
///
/// What was done with credentials, and by administration, newest first. An entity sees what is its own.
/// `nucleus audit verify` tells whether anything was changed or taken out.
#[utoipa::path(get, path = "/audit", operation_id = "audit", tag = "Audit",
    params(
        ("entity_id" = Option<EntityId>, Query, description = "Only what is this entity's."),
        Paging),
    responses((status = 200, description = "A page of entries.", body = List<Shown>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<List<Shown>>, ApiError> {
    let entity = query.take("entity_id");
    let slicing = query.slicing()?;
    query.finish()?;
    let slice = audit_log::list(&app.engine.db, caller.scope, entity, app.now(), slicing).await?;
    let scope = caller.scope;
    Ok(Json(
        List::of(slice, |row| encode_id(row.id.0)).map(|row| shown(row, scope)),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::document;

    #[test]
    fn of_every_operation_it_is_decided_whether_it_is_written_down() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let mut decided: Vec<&str> = AUDITED.iter().map(|(name, _)| *name).collect();
        decided.extend(NOT_AUDITED);
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let name = operation["operationId"].as_str().unwrap();
                let before = decided.len();
                decided.retain(|decision| *decision != name);
                assert_eq!(
                    decided.len(),
                    before - 1,
                    "{name} is in no table, or in both"
                );
            }
        }
        assert!(
            decided.is_empty(),
            "there are no such operations: {decided:?}"
        );
    }
}
