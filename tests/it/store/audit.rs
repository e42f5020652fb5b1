//! The audit log's chains, by many writers at once; and the secret store whose uses are written down.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures_util::{future::join_all, poll};
use nucleus::{
    audit::{self, AuditedStore, is_not_written},
    db::{
        Db,
        audit_log::{self, Act},
    },
    domain::{
        EntityId, ServiceName, SystemClock,
        audit::{Action, Interface, Origin},
    },
    secrets::{Labels, SecretBytes, SecretError, SecretName, SecretPath, SecretStore},
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{
    super::{
        db::both,
        waiting::{PATIENCE, happens},
    },
    at,
};

/// Writers at once.
const WRITERS: usize = 24;
/// Rows of each.
const ROWS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_make_one_chain_and_a_rollback_leaves_no_gap() {
    both(async |test| {
        let db = &test.db;
        let entity = EntityId::new();
        let write = async |writer: usize| {
            for turn in 0..ROWS {
                let owner = writer.is_multiple_of(2).then_some(entity);
                let target = format!("{writer} {turn}");
                let tx = db.begin().await.unwrap();
                let act = Act::done(owner, Action::KeyCreate, &target);
                audit_log::append(&tx, &act, at(1)).await.unwrap();
                // Every third is given up.
                if !(writer + turn).is_multiple_of(3) {
                    tx.commit().await.unwrap();
                }
            }
        };
        join_all((0..WRITERS).map(write)).await;
        let kept = WRITERS * ROWS * 2 / 3;
        let verified = audit::verify(db, None).await.unwrap();
        assert!(verified.findings.is_empty(), "{verified:?}");
        assert_eq!((verified.chains, verified.rows), (2, kept as u64));
        for chain in [entity.to_string(), audit_log::OPERATORS_CHAIN.to_owned()] {
            let head = audit_log::head(db, &chain).await.unwrap().unwrap();
            assert_eq!(head.position, kept as i64 / 2);
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_that_has_moved_since_it_was_logged_is_given_once_more() {
    both(async |test| {
        let (one, other) = (EntityId::new(), EntityId::new());
        let append = async |owner, time| {
            let tx = test.db.begin().await.unwrap();
            let act = Act::done(owner, Action::KeyCreate, "key");
            audit_log::append(&tx, &act, time).await.unwrap();
            tx.commit().await.unwrap();
        };
        let moved = async |time| {
            let tx = test.db.begin().await.unwrap();
            let heads = audit_log::take_moved(&tx, time).await.unwrap();
            tx.commit().await.unwrap();
            let mut shown: Vec<_> = heads
                .into_iter()
                .map(|head| (head.chain, head.position))
                .collect();
            shown.sort();
            shown
        };
        append(one, at(1)).await;
        append(other, at(1)).await;
        let tx = test.db.begin().await.unwrap();
        let logged = audit_log::take_unlogged(&tx, at(0), at(2), 9).await;
        tx.commit().await.unwrap();
        assert_eq!(logged.unwrap().len(), 2);
        assert_eq!(moved(at(3)).await, []);
        append(one, at(4)).await;
        append(one, at(5)).await;
        assert_eq!(moved(at(6)).await, [(one.to_string(), 3)]);
        assert_eq!(moved(at(7)).await, []);
        // One that was never logged is as good.
        let third = EntityId::new();
        append(third, at(8)).await;
        assert_eq!(moved(at(9)).await, [(third.to_string(), 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_row_says_at_whose_word_it_was_done() {
    both(async |test| {
        let origin = Origin {
            request_id: Some("r-1".to_owned()),
            address: Some("2001:db8::1".parse().unwrap()),
            ..Origin::command()
        };
        let append = async || {
            let tx = test.db.begin().await.unwrap();
            let act = Act::done(None, Action::VaultRotate, "vault");
            audit_log::append(&tx, &act, at(1)).await.unwrap();
            tx.commit().await.unwrap();
        };
        origin.scope(append()).await;
        Origin::system(Interface::Scheduler).scope(append()).await;
        append().await;
        let rows = audit_log::follow(&test.db, audit_log::OPERATORS_CHAIN, 0, 9)
            .await
            .unwrap();
        let said: Vec<_> = rows
            .iter()
            .map(|row| {
                let request = row.request_id.as_deref().unwrap_or_default();
                let address = row.address.as_deref().unwrap_or_default();
                (row.actor.as_str(), row.interface.as_str(), request, address)
            })
            .collect();
        assert_eq!(
            said,
            [
                ("operator", "cli", "r-1", "2001:db8::1"),
                ("system", "scheduler", "", ""),
                ("system", "worker", "", ""),
            ]
        );
    })
    .await;
}

/// A store that answers once it is let, and counts what it is asked.
struct Held {
    asked: AtomicUsize,
    let_go: Semaphore,
}

impl Held {
    async fn answer<T>(&self, answer: T) -> Result<T, SecretError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.let_go.acquire().await.unwrap().forget();
        Ok(answer)
    }
}

#[async_trait]
impl SecretStore for Held {
    async fn put(
        &self,
        name: &SecretName,
        _: SecretBytes,
        _: &Labels,
    ) -> Result<SecretPath, SecretError> {
        self.answer(path(name)).await
    }

    async fn get(&self, _: &SecretPath) -> Result<SecretBytes, SecretError> {
        self.answer(b"secret".to_vec().into()).await
    }

    async fn destroy(&self, _: &SecretPath) -> Result<(), SecretError> {
        self.answer(()).await
    }

    async fn versions(&self, _: &SecretName) -> Result<Vec<SecretPath>, SecretError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &SecretName) -> Result<(), SecretError> {
        self.answer(()).await
    }
}

fn path(name: &SecretName) -> SecretPath {
    format!("{name}/versions/1").parse().unwrap()
}

/// An entity's secret in a store that is audited in `db`.
struct Kept {
    held: Arc<Held>,
    tasks: TaskTracker,
    store: AuditedStore,
    labels: Labels,
    name: SecretName,
}

impl Kept {
    fn new(db: &Db) -> Self {
        let held = Arc::new(Held {
            asked: AtomicUsize::new(0),
            let_go: Semaphore::new(0),
        });
        let tasks = TaskTracker::new();
        let clock = Arc::new(SystemClock);
        let store = AuditedStore::new(held.clone(), db.clone(), clock, tasks.clone());
        let labels = Labels {
            entity_id: EntityId::new(),
            service: ServiceName::Gmail,
        };
        Self {
            held,
            tasks,
            store,
            labels,
            name: SecretName::new(labels.entity_id, labels.service),
        }
    }

    /// What the entity's chain says: acts and outcomes, each outcome with its attempt.
    async fn rows(&self, db: &Db) -> Vec<String> {
        let chain = self.labels.entity_id.to_string();
        let rows = audit_log::follow(db, &chain, 0, 99).await.unwrap();
        let shown = rows.iter().map(|row| {
            let begun = row.attempt_id.map(|id| rows.iter().any(|row| row.id == id));
            assert_ne!(begun, Some(false));
            format!(
                "{} {} {} {}",
                row.action,
                row.outcome,
                row.actor,
                begun.is_some()
            )
        });
        shown.collect()
    }
}

#[tokio::test]
async fn whoever_asks_for_a_secret_and_goes_away_leaves_no_attempt_without_an_end() {
    both(async |test| {
        let kept = Kept::new(&test.db);
        let secret = path(&kept.name);
        let mut reading = Box::pin(Origin::command().scope(kept.store.get(&secret)));
        let is_asked = happens(PATIENCE, async || {
            assert!(poll!(&mut reading).is_pending());
            kept.held.asked.load(Ordering::SeqCst) == 1
        });
        assert!(is_asked.await);
        drop(reading);
        kept.held.let_go.add_permits(1);
        kept.tasks.close();
        kept.tasks.wait().await;
        let rows = [
            "secret.read attempt operator false",
            "secret.read success operator true",
        ];
        assert_eq!(kept.rows(&test.db).await, rows);
    })
    .await;
}

#[tokio::test]
async fn no_use_of_a_secret_goes_by_a_log_that_cannot_be_written() {
    both(async |test| {
        let kept = Kept::new(&test.db);
        kept.held.let_go.add_permits(99);
        let secret = path(&kept.name);
        let use_it = async || {
            let value = b"secret".to_vec().into();
            [
                kept.store.put(&kept.name, value, &kept.labels).await.err(),
                kept.store.get(&secret).await.err(),
                kept.store.destroy(&secret).await.err(),
                kept.store.delete(&kept.name).await.err(),
            ]
        };
        test.sql("ALTER TABLE audit_log RENAME TO away").await;
        for refused in use_it().await {
            assert!(is_not_written(&refused.unwrap()));
        }
        assert_eq!(kept.held.asked.load(Ordering::SeqCst), 0);
        test.sql("ALTER TABLE away RENAME TO audit_log").await;
        assert!(use_it().await.iter().all(Option::is_none));
        assert_eq!(kept.held.asked.load(Ordering::SeqCst), 4);
        let of = |action: &str| {
            [
                format!("{action} attempt system false"),
                format!("{action} success system true"),
            ]
        };
        let actions = [
            "secret.write",
            "secret.read",
            "secret.destroy",
            "secret.delete",
        ];
        assert_eq!(kept.rows(&test.db).await, actions.map(of).concat());
    })
    .await;
}
