//! Ending the access to an account, for good or until it is connected again: runs and requests are
//! cancelled, the grant is revoked at the service, the credentials are destroyed, and the records kept or
//! deleted.
//!
//! A row of `disconnections` announces it and keeps what the service answered. Each step can be done
//! twice, so what a death interrupts is taken up from that row. Records, of which there may be millions, are
//! kept or deleted some in a transaction, and the integration goes in the one that finds none left.

use serde::Serialize;
use tracing::Span;
use utoipa::ToSchema;

use super::{IntegrationError, Integrations, Revocation};
use crate::{
    db::{
        DbError, Slicing, Tx,
        audit_log::{self, Act},
        disconnection::{self, Disconnection},
        entity, former_integration, grant,
        integration::{self, Filter, Integration},
        outbox,
        raw_data::Stored,
        removal,
        secret_intent::{self, SecretIntent},
        sync_run,
    },
    domain::{
        EntityId, IntegrationId, ServiceName,
        audit::Action,
        errors,
        ids::Id,
        record::Change,
        sync::{EndedRun, IntegrationStatus, RunError, Scope},
    },
    secrets::SecretName,
    traces,
};

/// Records kept or deleted in one transaction, which is over in a fraction of a second: others wait for
/// the positions of its events, and on SQLite for all of it.
const AT_ONCE: u64 = 500;

/// What becomes of the records of a removed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// They stay, and are adopted when the same entity connects the same account again.
    Keep,
    /// They go.
    Delete,
}

impl Records {
    fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Delete => "delete",
        }
    }

    /// As the row of a removal keeps it.
    fn kept(row: &Disconnection) -> Self {
        match row.records.as_deref() {
            Some("delete") => Self::Delete,
            _ => Self::Keep,
        }
    }
}

/// What removing an integration did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RemovedIntegration)]
pub struct Removed {
    /// The integration that was.
    pub integration_id: IntegrationId,
    /// Whether the grant stands no more at the service.
    pub revoked: bool,
    /// Why it still does, or may: `shared_grant` (another integration lives on it), `not_supported`,
    /// `no_credentials`, `access_token_only` (the service ends no refresh tokens), `no_usable_token`, or
    /// what the service said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// How many records were kept or deleted.
    pub records: u64,
}

impl Removed {
    fn of(integration_id: IntegrationId, revocation: Revocation, records: u64) -> Self {
        let revoked = revocation.is_ended();
        let reason = match revocation {
            Revocation::Failed(why) => why,
            other => other.as_str().to_owned(),
        };
        Self {
            integration_id,
            revoked,
            reason: (!revoked).then_some(reason),
            records,
        }
    }
}

impl Integrations {
    /// Removes the connection: at the service, with its runs and credentials, and with its records
    /// or without them. A service that fails does not stop the removal.
    pub async fn remove(
        &self,
        found: &Integration,
        records: Records,
    ) -> Result<Removed, IntegrationError> {
        let (row, found) = self.begin(found.id, Some(records)).await?;
        let (revocation, count) = self.carry_out(&row, &found).await?;
        Ok(Removed::of(found.id, revocation, count))
    }

    /// Ends the access and keeps the integration, with its records, for the account to be connected
    /// again. Where the service fails, the credentials stay, so that it can be asked once more. An
    /// integration whose removal was interrupted is removed.
    pub async fn revoke_access(&self, id: IntegrationId) -> Result<Revocation, IntegrationError> {
        let (row, found) = self.begin(id, None).await?;
        let (revocation, _) = self.carry_out(&row, &found).await?;
        Ok(revocation)
    }

    /// Removes an entity with all its connections and their records; each connection's grant is
    /// revoked first.
    pub async fn remove_entity(&self, id: EntityId) -> Result<Vec<Removed>, IntegrationError> {
        let tx = self.db.begin().await?;
        let now = self.clock.now();
        disconnection::begin_entity(&tx, id, now).await?;
        let target = id.to_string();
        let act = Act::done(id, Action::EntityRemovalBegin, &target);
        audit_log::append(&tx, &act, now).await?;
        tx.commit().await?;
        self.carry_entity_out(id).await
    }

    /// Takes up what a death interrupted.
    pub async fn resume_disconnections(&self) {
        if let Err(error) = self.try_resume().await {
            let error = errors::chain(&error);
            tracing::error!(
                error,
                "disconnections that were interrupted could not be taken up"
            );
        }
    }

    async fn try_resume(&self) -> Result<(), IntegrationError> {
        // Entities first: all that one has is announced before a service is asked about any.
        while let Some(id) = disconnection::take_abandoned_entity(&self.db).await? {
            tracing::warn!(entity.id = %id, "an interrupted removal is taken up");
            if let Err(error) = self.carry_entity_out(id).await {
                let error = errors::chain(&error);
                tracing::error!(entity.id = %id, error, "a removal is taken up again later");
            }
        }
        while let Some(row) = disconnection::take_abandoned(&self.db).await? {
            tracing::warn!(integration.id = %row.integration_id, "an interrupted disconnection is taken up");
            let found = integration::find(&self.db, Scope::Operator, row.integration_id).await;
            let done = match found {
                Err(DbError::NotFound) => self.finish(&row).await,
                Err(error) => Err(error.into()),
                Ok(found) => self.carry_out(&row, &found).await.map(drop),
            };
            match done {
                // Somebody else has come to its end.
                Ok(()) | Err(IntegrationError::Db(DbError::NotFound)) => {}
                Err(error) => tracing::error!(
                    integration.id = %row.integration_id,
                    error = errors::chain(&error),
                    "a disconnection is taken up again later"
                ),
            }
        }
        Ok(())
    }

    /// Carries out what the row says; gives how many records were kept or deleted, too.
    async fn carry_out(
        &self,
        row: &Disconnection,
        found: &Integration,
    ) -> Result<(Revocation, u64), IntegrationError> {
        match &row.records {
            Some(_) => self.carry_removal_out(row, found).await,
            None => Ok((self.carry_revocation_out(row, found).await?, 0)),
        }
    }

    async fn finish(&self, row: &Disconnection) -> Result<(), IntegrationError> {
        let tx = self.db.begin().await?;
        disconnection::finish(&tx, row, self.clock.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Announces the disconnection and cancels what is queued and under way, so that nothing more is
    /// done with the access. Gives the integration as it was.
    async fn begin(
        &self,
        id: IntegrationId,
        records: Option<Records>,
    ) -> Result<(Disconnection, Integration), IntegrationError> {
        let now = self.clock.now();
        let tx = self.db.begin().await?;
        let cancelled = self.cancel_work(&tx, id).await?;
        let (status, message) = match records {
            Some(_) => (
                IntegrationStatus::Inactive,
                "the integration is being removed",
            ),
            None => (
                IntegrationStatus::Revoked,
                "the operator ended the access: connect the account again",
            ),
        };
        grant::switch_off(&tx, id, status, message, now).await?;
        let found = integration::find_in(&tx, Scope::Operator, id).await?;
        let row = Disconnection {
            id: Id::new(),
            integration_id: id,
            entity_id: found.entity_id,
            service_name: found.service_name.clone(),
            records: records.map(|records| records.as_str().to_owned()),
            requested_at: now,
            outcome: None,
            detail: None,
            record_count: None,
        };
        let row = disconnection::begin(&tx, &row).await?;
        self.write_down(&tx, &found, Action::IntegrationDisconnect)
            .await?;
        tx.commit().await?;
        cancelled
            .into_iter()
            .for_each(|run| self.metrics.run_ended(run));
        fail::fail_point!("disconnect.begun");
        Ok((row, found))
    }

    /// The run first and the integration then, as a worker's transactions take them: the other way
    /// round each would wait for the other.
    async fn cancel_work(&self, tx: &Tx, id: IntegrationId) -> Result<Vec<EndedRun>, DbError> {
        let reason = RunError {
            code: "disconnected".to_owned(),
            detail: "the access to the account was ended".to_owned(),
        };
        let cancelled = sync_run::cancel_all(tx, id, &reason, self.clock.now()).await?;
        outbox::delete_sync_requests(tx, id).await?;
        Ok(cancelled)
    }

    /// Asks the service, unless its answer is known, and keeps what it answered.
    async fn revoke(
        &self,
        row: &Disconnection,
        found: &Integration,
    ) -> Result<Revocation, IntegrationError> {
        if let Some(kept) = Revocation::kept(row) {
            return Ok(kept);
        }
        let revocation = self.revoke_grant_of(found, row.id).await?;
        fail::fail_point!("disconnect.revoked");
        let tx = self.db.begin().await?;
        let (word, detail) = (revocation.as_str(), revocation.detail());
        disconnection::answered(&tx, row.id, word, detail, self.clock.now()).await?;
        tx.commit().await?;
        self.metrics.revoked(found.service()?, word);
        fail::fail_point!("disconnect.answered");
        tracing::info!(
            integration.id = %found.id,
            provider = found.service_name,
            outcome = word,
            "the access to an account was ended"
        );
        Ok(revocation)
    }

    async fn carry_removal_out(
        &self,
        row: &Disconnection,
        found: &Integration,
    ) -> Result<(Revocation, u64), IntegrationError> {
        let revocation = self.revoke(row, found).await?;
        let name = SecretName::new(found.entity_id, found.service()?);
        loop {
            let now = self.clock.now();
            let tx = self.db.begin().await?;
            self.cancel_work(&tx, found.id).await?;
            // Takes the row, and reads it again: a refresh may have replaced its credentials meanwhile.
            integration::update(&tx, found.id, integration::Update::default(), now).await?;
            let found = &integration::find_in(&tx, Scope::Operator, found.id).await?;
            let row = &disconnection::go_on(&tx, row.id).await?;
            let records = Records::kept(row);
            let count = match records {
                Records::Keep => removal::release_some(&tx, found.id, AT_ONCE).await?,
                Records::Delete => self.delete_some_records(&tx, found).await?,
            };
            if count > 0 {
                disconnection::add_records(&tx, row.id, count).await?;
                tx.commit().await?;
                fail::fail_point!("disconnect.records");
                continue;
            }
            // The credentials go after the row; until then the intent remembers them.
            let intent = SecretIntent {
                id: Id::new(),
                secret_name: name.to_string(),
                created_at: now,
            };
            secret_intent::insert(&tx, &intent).await?;
            if let (Records::Keep, Some(account)) = (records, &found.account) {
                former_integration::insert(&tx, found, account, now).await?;
            }
            integration::delete(&tx, found.id).await?;
            disconnection::finish(&tx, row, now).await?;
            self.write_down(&tx, found, Action::IntegrationRemove)
                .await?;
            tx.commit().await?;
            fail::fail_point!("disconnect.removed");
            self.tokens.forget(found.id);
            self.destroy_last(found.secret_path.as_deref(), intent.id)
                .await;
            return Ok((revocation, row.record_count.unwrap_or_default() as u64));
        }
    }

    async fn carry_revocation_out(
        &self,
        row: &Disconnection,
        found: &Integration,
    ) -> Result<Revocation, IntegrationError> {
        let revocation = self.revoke(row, found).await?;
        let now = self.clock.now();
        let tx = self.db.begin().await?;
        // Takes the row, before that of the disconnection as all do.
        integration::update(&tx, found.id, integration::Update::default(), now).await?;
        if !disconnection::finish(&tx, row, now).await? {
            // What is connected by now is not what was to end.
            return Ok(revocation);
        }
        // A refresh may have replaced the credentials meanwhile.
        let found = &integration::find_in(&tx, Scope::Operator, found.id).await?;
        let mut destroyed = None;
        match (&revocation, &found.secret_path) {
            (Revocation::Failed(_), _) | (_, None) => {}
            (_, Some(path)) => {
                if grant::drop_secret(&tx, found.id, path, now).await? {
                    let name = SecretName::new(found.entity_id, found.service()?);
                    let intent = SecretIntent {
                        id: Id::new(),
                        secret_name: name.to_string(),
                        created_at: now,
                    };
                    secret_intent::insert(&tx, &intent).await?;
                    destroyed = Some((path, intent.id));
                }
            }
        }
        self.write_down(&tx, found, Action::IntegrationChange)
            .await?;
        tx.commit().await?;
        self.tokens.forget(found.id);
        if let Some((path, intent)) = destroyed {
            self.destroy_last(Some(path), intent).await;
        }
        Ok(revocation)
    }

    async fn carry_entity_out(&self, id: EntityId) -> Result<Vec<Removed>, IntegrationError> {
        let mut removed = Vec::new();
        loop {
            let slicing = Slicing {
                after: None,
                limit: 100,
            };
            let filter = Filter::default();
            let found = integration::list(&self.db, Scope::Entity(id), &filter, slicing).await?;
            if found.items.is_empty() {
                break;
            }
            // All of them are announced before a service is asked: a grant that they share goes too.
            let mut begun = Vec::new();
            for item in &found.items {
                match self.begin(item.id, Some(Records::Delete)).await {
                    Ok(one) => begun.push(one),
                    Err(IntegrationError::Db(DbError::NotFound)) => {}
                    Err(error) => return Err(error),
                }
            }
            for (row, found) in begun {
                match self.carry_removal_out(&row, &found).await {
                    Ok((revocation, count)) => {
                        removed.push(Removed::of(found.id, revocation, count));
                    }
                    // Somebody else has removed it meanwhile.
                    Err(IntegrationError::Db(DbError::NotFound)) => self.finish(&row).await?,
                    Err(error) => return Err(error),
                }
            }
        }
        // After the integrations, which may live on the same grants.
        self.end_waiting_of(id).await?;
        self.delete_kept_records(id).await?;
        let tx = self.db.begin().await?;
        match entity::delete(&tx, id).await {
            Ok(()) => {
                let target = id.to_string();
                let act = Act::done(id, Action::EntityRemove, &target);
                audit_log::append(&tx, &act, self.clock.now()).await?;
                tx.commit().await?;
            }
            Err(DbError::NotFound) => drop(tx),
            Err(error) => return Err(error.into()),
        }
        fail::fail_point!("disconnect.entity");
        // A connection made meanwhile went with the entity; nobody will write these names again.
        for service in ServiceName::ALL {
            self.secrets.delete(&SecretName::new(id, service)).await?;
        }
        let tx = self.db.begin().await?;
        disconnection::finish_entity(&tx, id).await?;
        tx.commit().await?;
        Ok(removed)
    }

    /// Deletes some records of an integration; says how many.
    async fn delete_some_records(&self, tx: &Tx, found: &Integration) -> Result<u64, DbError> {
        let rows = removal::delete_some(tx, found.id, AT_ONCE).await?;
        let source = source(found.entity_id, found.id, found.service_name.clone());
        self.tell_deleted(tx, &source, &rows).await?;
        Ok(rows.len() as u64)
    }

    /// Deletes what is left of an entity's records when its integrations are gone: its row would take all
    /// of them along in one statement.
    async fn delete_kept_records(&self, id: EntityId) -> Result<(), DbError> {
        loop {
            let tx = self.db.begin().await?;
            disconnection::go_on_with_entity(&tx, id).await?;
            let deleted = removal::delete_of_entity(&tx, id, AT_ONCE).await?;
            if deleted.count == 0 {
                return Ok(());
            }
            for (former, rows) in &deleted.of_former {
                let Some(service_name) = former_integration::service_of(&tx, *former).await? else {
                    tracing::warn!(
                        entity.id = %id,
                        integration.id = %former,
                        "no event tells that {} records are deleted: nobody knows their service any more",
                        rows.len()
                    );
                    continue;
                };
                let source = source(id, *former, service_name);
                self.tell_deleted(&tx, &source, rows).await?;
            }
            tx.commit().await?;
            fail::fail_point!("disconnect.records");
        }
    }

    /// Appends the events that tell of deleted records, but for those that were erased before.
    async fn tell_deleted(
        &self,
        tx: &Tx,
        source: &outbox::Source,
        rows: &[(String, Stored)],
    ) -> Result<(), DbError> {
        let changed = rows
            .iter()
            .filter(|(_, stored)| !stored.deleted)
            .map(|(id, stored)| stored.changed(id, Change::Deleted))
            .collect();
        outbox::append_dna_events(tx, source, changed, self.clock.now())
            .await
            .map(drop)
    }
}

/// Whose records a removal deletes.
fn source(
    entity_id: EntityId,
    integration_id: IntegrationId,
    service_name: String,
) -> outbox::Source {
    outbox::Source {
        entity_id,
        integration_id,
        service_name,
        run_id: None,
        traceparent: traces::traceparent(&Span::current()),
    }
}
