//! A secret store whose every use is written down.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::Attempt;
use crate::{
    db::{Db, DbError},
    domain::{
        Clock,
        audit::{Action, Origin},
    },
    secrets::{Labels, SecretBytes, SecretError, SecretName, SecretPath, SecretStore},
};

/// What cannot be written down.
const WRITING: &str = "writing the audit log";

/// The store that everybody uses. Which versions there are is no secret, and asking for it is not
/// written down.
#[derive(Clone)]
pub struct AuditedStore {
    store: Arc<dyn SecretStore>,
    db: Db,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
}

impl AuditedStore {
    /// Writes down in `db` what is done in `store`. What has begun goes on in `tasks` although nobody
    /// waits for it any more, so that its end is written down too.
    pub fn new(
        store: Arc<dyn SecretStore>,
        db: Db,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            store,
            db,
            clock,
            tasks,
        }
    }

    /// `use_it` in a task of its own, between the rows of its attempt and its end; `place` is where it was
    /// done, if that is known only then.
    async fn written_down<T, W>(
        &self,
        action: Action,
        name: SecretName,
        target: String,
        use_it: impl FnOnce(Arc<dyn SecretStore>) -> W + Send + 'static,
        place: fn(&T) -> Option<&str>,
    ) -> Result<T, SecretError>
    where
        T: Send + Sync + 'static,
        W: Future<Output = Result<T, SecretError>> + Send,
    {
        let audited = self.clone();
        let work = async move {
            let owner = name.entity_id();
            let clock = audited.clock.as_ref();
            let attempt = Attempt::begin(&audited.db, clock, owner, action, &target)
                .await
                .map_err(not_written)?;
            let done = use_it(Arc::clone(&audited.store)).await;
            let shown = done.as_ref().ok().and_then(place).unwrap_or(&target);
            attempt.end(done.is_ok(), shown).await;
            done
        };
        let work = Origin::current().scope(work.in_current_span());
        match self.tasks.spawn(work).await {
            Ok(done) => done,
            Err(error) => Err(SecretError::Unavailable {
                doing: "using the secret store".to_owned(),
                source: Box::new(error),
            }),
        }
    }
}

fn not_written(error: DbError) -> SecretError {
    SecretError::Unavailable {
        doing: WRITING.to_owned(),
        source: Box::new(error),
    }
}

fn as_place(path: &SecretPath) -> Option<&str> {
    Some(path.as_str())
}

/// Whether nothing was done because it could not be written down.
pub fn is_not_written(error: &SecretError) -> bool {
    matches!(error, SecretError::Unavailable { doing, .. } if doing == WRITING)
}

#[async_trait]
impl SecretStore for AuditedStore {
    async fn put(
        &self,
        name: &SecretName,
        value: SecretBytes,
        labels: &Labels,
    ) -> Result<SecretPath, SecretError> {
        let (target, labels, to) = (name.as_str().to_owned(), *labels, name.clone());
        let put =
            move |store: Arc<dyn SecretStore>| async move { store.put(&to, value, &labels).await };
        self.written_down(Action::SecretWrite, name.clone(), target, put, as_place)
            .await
    }

    async fn get(&self, path: &SecretPath) -> Result<SecretBytes, SecretError> {
        let (target, name, from) = (path.as_str().to_owned(), path.name().clone(), path.clone());
        let get = move |store: Arc<dyn SecretStore>| async move { store.get(&from).await };
        self.written_down(Action::SecretRead, name, target, get, |_| None)
            .await
    }

    async fn destroy(&self, path: &SecretPath) -> Result<(), SecretError> {
        let (target, name, of) = (path.as_str().to_owned(), path.name().clone(), path.clone());
        let destroy = move |store: Arc<dyn SecretStore>| async move { store.destroy(&of).await };
        self.written_down(Action::SecretDestroy, name, target, destroy, |()| None)
            .await
    }

    async fn versions(&self, name: &SecretName) -> Result<Vec<SecretPath>, SecretError> {
        self.store.versions(name).await
    }

    async fn delete(&self, name: &SecretName) -> Result<(), SecretError> {
        let (target, of) = (name.as_str().to_owned(), name.clone());
        let delete = move |store: Arc<dyn SecretStore>| async move { store.delete(&of).await };
        self.written_down(Action::SecretDelete, name.clone(), target, delete, |()| {
            None
        })
        .await
    }
}
