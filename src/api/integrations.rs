//! `/integrations`: connecting accounts by credentials, looking at them, changing and removing them.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, SchemaType, Type},
};

use super::{
    List,
    bodies::{ChangedIntegration, Check, NewIntegration, SetStatus},
    by_hand,
    caller::Caller,
    error::ApiError,
    extract::{Body, DataParameter, NoFields, Paging, PathId, Query, encode_id},
    idempotency::NewId,
    to_the_end,
};
use crate::{
    app::App,
    db::{
        audit_log::{self, Act},
        entity,
        integration::{self, Filter, Integration, Update},
        standing::CHECK_EVERY,
    },
    domain::{
        CredentialType, EntityId, IntegrationId, ServiceName, audit::Action, ids::kind,
        sync::IntegrationStatus, time,
    },
    integrations::{Checked, Records, Removed, refuse_if_ending},
    providers,
    secrets::Credentials,
    sync::SyncSettings,
};

/// An entity's connected account at a service. It never shows credentials, nor where they are.
#[derive(Serialize, ToSchema)]
#[schema(as = Integration)]
pub(super) struct Shown {
    /// Its id.
    id: IntegrationId,
    /// The same: the name by which other objects refer to it.
    integration_id: IntegrationId,
    /// Its owner.
    entity_id: EntityId,
    /// The service.
    #[schema(value_type = ServiceName)]
    service_name: String,
    /// The owner's own word for the kind of service.
    service_type: Option<String>,
    /// What people call it.
    display_name: Option<String>,
    /// For people.
    description: Option<String>,
    /// How it authenticates.
    #[schema(value_type = CredentialType)]
    credential_type: String,
    /// Whether the service was asked whose the present credentials are.
    is_tested: bool,
    /// How it stands. `inactive`: switched off by its owner. `expired`, `revoked`: the consent ran
    /// out or was withdrawn, and the account has to be connected again. `error`: the last sync
    /// or question failed for a reason that may pass or that the operator can mend.
    #[schema(value_type = IntegrationStatus)]
    status: String,
    /// What people know the account by at the service, once it has been asked.
    account: Option<String>,
    /// When the last run ended that did not fail.
    #[serde(serialize_with = "time::serialize_option")]
    last_sync_at: Option<DateTime<Utc>>,
    /// How the last run ended.
    #[schema(schema_with = last_sync_status)]
    last_sync_status: Option<String>,
    /// Why the last run failed.
    sync_error_message: Option<String>,
    /// When the next run is asked for by schedule.
    #[serde(serialize_with = "time::serialize_option")]
    next_sync_at: Option<DateTime<Utc>>,
    /// When the access token that was given ends.
    #[serde(serialize_with = "time::serialize_option")]
    token_expires_at: Option<DateTime<Utc>>,
    /// When the person has to consent again, where the service limits a consent and says so.
    #[serde(serialize_with = "time::serialize_option")]
    consent_expires_at: Option<DateTime<Utc>>,
    /// The scopes that were asked for.
    #[schema(value_type = Vec<String>)]
    scopes: Value,
    /// The owner's own settings of the connector.
    #[schema(value_type = Object)]
    config: Value,
    /// How and when it syncs.
    #[schema(value_type = SyncSettings)]
    sync_settings: Value,
    /// Free.
    #[schema(value_type = Object)]
    meta_data: Value,
    /// When it was made.
    #[serde(serialize_with = "time::serialize")]
    created_at: DateTime<Utc>,
    /// When it was changed.
    #[serde(serialize_with = "time::serialize")]
    updated_at: DateTime<Utc>,
    /// Who made it: `operator`, or the id of a key.
    created_by: Option<String>,
}

/// The words that may stand in the table, or null.
fn last_sync_status() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("How the last run ended."))
        .enum_values(Some([
            json!("success"),
            json!("partial"),
            json!("failed"),
            json!(null),
        ]))
        .build()
}

impl From<Integration> for Shown {
    fn from(row: Integration) -> Self {
        Self {
            id: row.id,
            integration_id: row.id,
            entity_id: row.entity_id,
            service_name: row.service_name,
            service_type: row.service_type,
            display_name: row.display_name,
            description: row.description,
            credential_type: row.credential_type,
            is_tested: row.account_verified,
            status: row.status,
            account: row.account_name.or(row.account),
            last_sync_at: row.last_sync_at,
            last_sync_status: row.last_sync_status,
            sync_error_message: row.sync_error_message,
            next_sync_at: row.next_sync_at,
            token_expires_at: row.token_expires_at,
            consent_expires_at: row.consent_expires_at,
            scopes: row.scopes,
            config: row.config,
            sync_settings: row.sync_settings,
            meta_data: row.meta_data,
            created_at: row.created_at,
            updated_at: row.updated_at,
            created_by: row.created_by,
        }
    }
}

/// Connect an account by its credentials
///
/// Keeps the credentials in the secret store. Starts no sync; the schedule starts the first one, or
/// `POST /integrations/{id}/sync`. For `oauth2` no provider is asked. A token by hand is asked about at
/// its service: one that is refused, or that lacks a scope, is not kept; where the service does not
/// answer, `is_tested` is false and `sync_error_message` says why.
#[utoipa::path(post, path = "/integrations", operation_id = "create_integration",
    tag = "Integrations",
    request_body = NewIntegration,
    responses(
        (status = 201, description = "The integration.", body = Shown),
        (status = 404, description = "not_found"),
        (status = 409, description = "integration_exists")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    NewId(id): NewId,
    Body(body): Body<NewIntegration>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    caller.require_entity(body.entity_id)?;
    if !entity::exists(&app.engine.db, body.entity_id).await? {
        return Err(ApiError::NotFound);
    }
    let now = app.now();
    let mut check = Check::default();
    check.names(body.display_name.as_deref(), body.description.as_deref());
    check.service_type(body.service_type.as_deref());
    check.json("config", body.config.as_ref());
    let has_connector = app.engine.services.contains_key(&body.service_name);
    let types = providers::of(body.service_name).credential_types();
    if !types.contains(&body.credential_type) {
        let types: Vec<_> = types.iter().map(|kind| kind.as_str()).collect();
        check.refuse(
            "credential_type",
            format!("{} takes {}", body.service_name, types.join(", ")),
        );
    }
    let settings = check.sync_settings(body.sync_settings.as_ref());
    let expires_at = check.expiry(body.token_expires_in, now);
    let credentials = check.credentials(
        body.credential_type,
        body.credentials,
        app.clients.get(&body.service_name),
        body.scopes.as_deref(),
        expires_at,
    );
    check.finish()?;
    let Some(credentials) = credentials else {
        return Err(ApiError::field("credentials", "are not complete"));
    };
    let (mut known, mut untested) = (None, None);
    let mut scopes = body.scopes.unwrap_or_default();
    match &credentials {
        Credentials::OAuth2(credentials) => scopes.clone_from(&credentials.scopes),
        Credentials::Fields(fields) => {
            match by_hand::ask(&app, body.service_name, fields, None).await? {
                Ok(told) => known = Some(told),
                Err(reason) => untested = Some(reason),
            }
        }
    }
    if let Some(told) = known.as_ref().and_then(|known| known.scopes.as_ref()) {
        scopes.clone_from(told);
    }
    let account = known.map(|known| known.account);
    let id = IntegrationId::from(id);
    let row = Integration {
        id,
        entity_id: body.entity_id,
        service_name: body.service_name.to_string(),
        service_type: body.service_type,
        display_name: body.display_name,
        description: body.description,
        secret_path: None,
        credential_type: body.credential_type.as_str().to_owned(),
        status: IntegrationStatus::Active.as_str().to_owned(),
        account_verified: account.is_some(),
        account_name: account.as_ref().map(|account| account.name.clone()),
        account: account.map(|account| account.id),
        last_sync_at: None,
        last_sync_status: None,
        sync_error_message: untested,
        sync_failures: 0,
        next_sync_at: has_connector.then(|| settings.next_sync(now, 0, id)),
        token_expires_at: expires_at,
        consent_expires_at: None,
        refresh_generation: 0,
        credentials_generation: 0,
        access_ended_at: None,
        next_check_at: (!has_connector).then(|| now + CHECK_EVERY),
        scopes: json!(scopes),
        config: Value::Object(body.config.unwrap_or_default()),
        sync_settings: json!(settings),
        meta_data: json!({}),
        created_at: now,
        updated_at: now,
        created_by: Some(caller.name),
    };
    let creating = Arc::clone(&app);
    let created = to_the_end(&app, async move {
        Ok(creating.integrations.create(row, credentials).await?)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// List integrations
///
/// Newest first.
#[utoipa::path(get, path = "/integrations", operation_id = "list_integrations",
    tag = "Integrations",
    params(
        ("entity_id" = Option<EntityId>, Query, description = "Only this entity's."),
        ("service_name" = Option<ServiceName>, Query, description = "Only this service's."),
        ("status" = Option<IntegrationStatus>, Query, description = "Only those that stand so."),
        ("consent_ends_before" = Option<DateTime<Utc>>, Query,
            description = "Only those whose person has to consent again before this time."),
        Paging),
    responses((status = 200, description = "A page of integrations.", body = List<Shown>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<List<Shown>>, ApiError> {
    let filter = Filter {
        entity_id: query.take("entity_id"),
        service_name: query.take("service_name"),
        status: query.take("status"),
        consent_ends_before: query.take("consent_ends_before"),
    };
    let slicing = query.slicing()?;
    query.finish()?;
    let slice = integration::list(&app.engine.db, caller.scope, &filter, slicing).await?;
    Ok(Json(
        List::of(slice, |row| encode_id(row.id.0)).map(Shown::from),
    ))
}

/// Read an integration
#[utoipa::path(get, path = "/integrations/{id}", operation_id = "get_integration",
    tag = "Integrations",
    params(("id" = IntegrationId, Path, description = "The integration's id.")),
    responses((status = 200, description = "The integration.", body = Shown)))]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
) -> Result<Json<Shown>, ApiError> {
    Ok(Json(
        integration::find(&app.engine.db, caller.scope, id)
            .await?
            .into(),
    ))
}

/// Change an integration
///
/// What is absent stays, and null clears. A new token by hand is asked about as that of a new
/// integration is, and must be one of the same account. New credentials make an expired or revoked integration
/// active; an inactive one stays inactive until its status is set.
#[utoipa::path(patch, path = "/integrations/{id}", operation_id = "change_integration",
    tag = "Integrations",
    params(("id" = IntegrationId, Path, description = "The integration's id.")),
    request_body = ChangedIntegration,
    responses(
        (status = 200, description = "The integration after the change.", body = Shown),
        (status = 409, description = "integration_ended, integration_ending, conflict")))]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
    Body(body): Body<ChangedIntegration>,
) -> Result<Json<Shown>, ApiError> {
    let found = integration::find(&app.engine.db, caller.scope, id).await?;
    let mut check = Check::default();
    check.names(
        body.display_name.as_ref().and_then(Option::as_deref),
        body.description.as_ref().and_then(Option::as_deref),
    );
    check.json("config", body.config.as_ref().and_then(Option::as_ref));
    let settings = body
        .sync_settings
        .as_ref()
        .map(|value| check.sync_settings(value.as_ref()));
    let credentials = body.credentials.map(|fields| {
        let kind = CredentialType::from_word(&found.credential_type);
        let service = found.service().ok();
        let client = service.and_then(|service| app.clients.get(&service));
        kind.and_then(|kind| check.credentials(kind, fields, client, None, None))
    });
    check.finish()?;
    let mut asked = None;
    if let Some(Some(Credentials::Fields(fields))) = &credentials {
        asked = Some(by_hand::ask(&app, found.service()?, fields, Some(&found)).await?);
    }
    if found.status()?.is_ended() && body.status == Some(SetStatus::Active) && credentials.is_none()
    {
        return Err(ApiError::Conflict(
            "integration_ended",
            format!(
                "the integration is {}: give it new credentials",
                found.status
            ),
        ));
    }
    let now = app.now();
    let update = Update {
        display_name: body.display_name,
        description: body.description,
        config: body
            .config
            .map(|config| Value::Object(config.unwrap_or_default())),
        next_sync_at: settings.as_ref().and_then(|settings| {
            // Counted from the last sync, as it would have been with these settings.
            found.next_sync_at?;
            let from = found.last_sync_at.unwrap_or(found.created_at);
            Some(settings.next_sync(from, found.sync_failures, id).max(now))
        }),
        sync_settings: settings.map(|settings| json!(settings)),
        status: body.status.map(IntegrationStatus::from),
    };
    let changing = Arc::clone(&app);
    let scope = caller.scope;
    let changed = to_the_end(&app, async move {
        if let Some(Some(credentials)) = credentials {
            changing
                .integrations
                .replace_credentials(&found, credentials, asked)
                .await?;
        }
        let tx = changing.engine.db.begin().await?;
        integration::update(&tx, id, update, now).await?;
        refuse_if_ending(&tx, id).await?;
        let changed = integration::find_in(&tx, scope, id).await?;
        let target = id.to_string();
        let act = Act::done(changed.entity_id, Action::IntegrationChange, &target);
        audit_log::append(&tx, &act, now).await?;
        tx.commit().await?;
        Ok(changed)
    })
    .await?;
    Ok(Json(changed.into()))
}

/// Remove an integration
///
/// Revokes the grant at the service, unless another integration lives on it, and destroys the
/// credentials. A service that fails does not stop the removal.
#[utoipa::path(delete, path = "/integrations/{id}", operation_id = "delete_integration",
    tag = "Integrations",
    params(("id" = IntegrationId, Path, description = "The integration's id."), DataParameter),
    responses((status = 200, description = "What removing it did.", body = Removed)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
    mut query: Query,
) -> Result<Json<Removed>, ApiError> {
    let records = match query.one_of("data", &["keep", "delete"]) {
        "delete" => Records::Delete,
        _ => Records::Keep,
    };
    query.finish()?;
    let found = integration::find(&app.engine.db, caller.scope, id).await?;
    let removing = Arc::clone(&app);
    let removed = to_the_end(&app, async move {
        Ok(removing.integrations.remove(&found, records).await?)
    })
    .await?;
    Ok(Json(removed))
}

/// What asking the service came to.
#[derive(Serialize, ToSchema)]
#[schema(as = TestedIntegration)]
pub(super) struct Tested {
    /// The integration.
    integration_id: IntegrationId,
    /// The service.
    #[schema(value_type = ServiceName)]
    service_name: String,
    /// Whether the credentials work and are those of the integration's account.
    is_valid: bool,
    /// When it was asked.
    #[serde(serialize_with = "time::serialize")]
    tested_at: DateTime<Utc>,
    /// The account that the credentials belong to, if the service said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    account: Option<String>,
    /// Why they are not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// Test an integration's credentials
///
/// Asks the service whose the credentials are. What it answers sets the integration's status: `active`, `expired` or
/// `revoked` where the consent ran out or was withdrawn, `error` for what the operator has to mend; an outage
/// does not. An access that the operator ended is not used.
#[utoipa::path(post, path = "/integrations/{id}/test", operation_id = "test_integration",
    tag = "Integrations",
    params(("id" = IntegrationId, Path, description = "The integration's id.")),
    request_body = NoFields,
    responses(
        (status = 200, description = "What the service said.", body = Tested)))]
pub(super) async fn test(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId<kind::Integration>,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Tested>, ApiError> {
    let found = integration::find(&app.engine.db, caller.scope, id).await?;
    let testing = Arc::clone(&app);
    let tested = to_the_end(&app, async move { ask(&testing, found).await }).await?;
    Ok(Json(tested))
}

async fn ask(app: &App, found: Integration) -> Result<Tested, ApiError> {
    let Checked { account, reason } = app.integrations.check(&found).await?;
    Ok(Tested {
        integration_id: found.id,
        service_name: found.service_name,
        is_valid: reason.is_none(),
        tested_at: app.now(),
        account,
        reason,
    })
}
