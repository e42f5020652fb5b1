//! A secret store whose every use is written down.

use std::sync::Arc;

use async_trait::async_trait;

use super::Attempt;
use crate::{
    db::{Db, DbError},
    domain::{Clock, audit::Action},
    secrets::{Labels, SecretBytes, SecretError, SecretName, SecretPath, SecretStore},
};

/// The store that everything but `doctor` uses. Which versions there are is no secret, and asking for
/// it is not written down.
pub struct AuditedStore {
    store: Arc<dyn SecretStore>,
    db: Db,
    clock: Arc<dyn Clock>,
}

impl AuditedStore {
    /// Writes down in `db` what is done in `store`.
    pub fn new(store: Arc<dyn SecretStore>, db: Db, clock: Arc<dyn Clock>) -> Self {
        Self { store, db, clock }
    }

    async fn begin(
        &self,
        action: Action,
        name: &SecretName,
        target: &str,
    ) -> Result<Attempt<'_>, SecretError> {
        Attempt::begin(
            &self.db,
            self.clock.as_ref(),
            name.entity_id(),
            action,
            target,
        )
        .await
        .map_err(not_written)
    }
}

fn not_written(error: DbError) -> SecretError {
    SecretError::Unavailable {
        doing: "writing the audit log".to_owned(),
        source: Box::new(error),
    }
}

#[async_trait]
impl SecretStore for AuditedStore {
    async fn put(
        &self,
        name: &SecretName,
        value: SecretBytes,
        labels: &Labels,
    ) -> Result<SecretPath, SecretError> {
        let attempt = self.begin(Action::SecretWrite, name, name.as_str()).await?;
        let path = self.store.put(name, value, labels).await;
        let target = path.as_ref().map_or(name.as_str(), SecretPath::as_str);
        attempt.end(path.is_ok(), target).await;
        path
    }

    async fn get(&self, path: &SecretPath) -> Result<SecretBytes, SecretError> {
        let target = path.as_str();
        let attempt = self.begin(Action::SecretRead, path.name(), target).await?;
        let value = self.store.get(path).await;
        attempt.end(value.is_ok(), target).await;
        value
    }

    async fn destroy(&self, path: &SecretPath) -> Result<(), SecretError> {
        let target = path.as_str();
        let attempt = self
            .begin(Action::SecretDestroy, path.name(), target)
            .await?;
        let destroyed = self.store.destroy(path).await;
        attempt.end(destroyed.is_ok(), target).await;
        destroyed
    }

    async fn versions(&self, name: &SecretName) -> Result<Vec<SecretPath>, SecretError> {
        self.store.versions(name).await
    }

    async fn delete(&self, name: &SecretName) -> Result<(), SecretError> {
        let target = name.as_str();
        let attempt = self.begin(Action::SecretDelete, name, target).await?;
        let deleted = self.store.delete(name).await;
        attempt.end(deleted.is_ok(), target).await;
        deleted
    }
}
