//! The small tables: gaps, cursors, spent quota, announced secrets, keys, dead letters.

use nucleus::{
    db::{
        DbError,
        api_key::{self, ApiKey, ApiKeyId},
        dead_letter::{self, DeadLetter},
        gap, integration, quota_window,
        secret_intent::{self, SecretIntent, SecretIntentId},
        sync_cursor::{self, SyncCursor},
    },
    domain::{EventId, RunId},
};
use serde_json::json;

use super::{super::db::both, AWKWARD, at, connect_gmail, first, strings};

#[tokio::test]
async fn a_gap_counts_once_a_run_and_is_given_up_in_the_fifth() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let record = async |run, id: &str, now| {
            let tx = db.begin().await.unwrap();
            let given_up = gap::record(&tx, row.id, run, id, AWKWARD, at(now))
                .await
                .unwrap();
            let open = gap::count_open(&tx, row.id).await.unwrap();
            tx.commit().await.unwrap();
            (given_up, open)
        };
        let first = RunId::new();
        assert_eq!(record(first, "b", 1).await, (false, 1));
        assert_eq!(record(first, "a", 2).await, (false, 2));
        for _ in 0..9 {
            assert_eq!(record(first, "b", 3).await, (false, 2));
        }
        assert!(gap::open(db, row.id, first, 9).await.unwrap().is_empty());
        let open = gap::open(db, row.id, RunId::new(), 9).await.unwrap();
        let open: Vec<(&str, i32)> = open
            .iter()
            .map(|gap| (gap.external_id.as_str(), gap.attempts))
            .collect();
        assert_eq!(open, [("b", 1), ("a", 1)], "oldest first");
        assert_eq!(
            gap::open(db, row.id, RunId::new(), 1).await.unwrap().len(),
            1
        );

        for attempts in 2..gap::MAX_ATTEMPTS {
            let run = RunId::new();
            assert_eq!(record(run, "b", 4).await, (false, 2), "{attempts}");
            assert_eq!(record(run, "b", 4).await, (false, 2), "{attempts}");
        }
        let last = RunId::new();
        assert_eq!(record(last, "b", 5).await, (true, 1));
        assert_eq!(record(last, "b", 5).await, (true, 1));
        let open = gap::open(db, row.id, RunId::new(), 9).await.unwrap();
        assert_eq!((open.len(), open[0].external_id.as_str()), (1, "a"));

        let tx = db.begin().await.unwrap();
        gap::close(&tx, row.id, &strings(&["a", "b", "never"]))
            .await
            .unwrap();
        gap::close(&tx, row.id, &[]).await.unwrap();
        assert_eq!(gap::count_open(&tx, row.id).await.unwrap(), 0);
        tx.commit().await.unwrap();
        assert_eq!(test.count("sync_gaps").await, 0);
        assert_eq!(
            record(RunId::new(), "b", 6).await,
            (false, 1),
            "it starts anew"
        );
    })
    .await;
}

#[tokio::test]
async fn a_cursor_is_replaced_and_forgotten() {
    both(async |test| {
        let db = &test.db;
        let (row, other) = (connect_gmail(db).await, connect_gmail(db).await);
        assert!(
            sync_cursor::load(db, row.id, "main")
                .await
                .unwrap()
                .is_none()
        );
        let run = RunId::new();
        for (value, listing) in [
            (
                json!({"page": AWKWARD, "n": 18_014_398_509_481_985_i64}),
                Some(run),
            ),
            (json!("123"), None),
            (json!(null), None),
        ] {
            let cursor = SyncCursor {
                cursor_value: value.clone(),
                listing_run_id: listing,
            };
            let tx = db.begin().await.unwrap();
            sync_cursor::save(&tx, row.id, "main", &cursor, at(1))
                .await
                .unwrap();
            sync_cursor::save(&tx, other.id, "main", &cursor, at(1))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let found = sync_cursor::load(db, row.id, "main")
                .await
                .unwrap()
                .unwrap();
            assert_eq!((found.cursor_value, found.listing_run_id), (value, listing));
        }
        // Each stream has its own, and a file that is being imported is none.
        let cursor = SyncCursor {
            cursor_value: json!("other"),
            listing_run_id: None,
        };
        let tx = db.begin().await.unwrap();
        sync_cursor::save(&tx, row.id, "other", &cursor, at(2))
            .await
            .unwrap();
        sync_cursor::clear(&tx, row.id, "main").await.unwrap();
        assert!(sync_cursor::exists(&tx, row.id).await.unwrap());
        tx.commit().await.unwrap();
        let found = sync_cursor::load(db, row.id, "other").await.unwrap();
        assert_eq!(found.unwrap().cursor_value, json!("other"));
        let tx = db.begin().await.unwrap();
        sync_cursor::clear(&tx, row.id, "other").await.unwrap();
        sync_cursor::save(&tx, row.id, "import:1", &cursor, at(2))
            .await
            .unwrap();
        assert!(!sync_cursor::exists(&tx, row.id).await.unwrap());
        tx.commit().await.unwrap();
        assert!(
            sync_cursor::load(db, row.id, "main")
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            sync_cursor::load(db, other.id, "main")
                .await
                .unwrap()
                .is_some()
        );
    })
    .await;
}

#[tokio::test]
async fn spent_quota_is_kept_with_its_integration() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        assert_eq!(quota_window::load(db, row.id).await.unwrap(), None);
        for spending in [json!([[1_790_000_000_123_i64, 20]]), json!([])] {
            let tx = db.begin().await.unwrap();
            quota_window::save(&tx, row.id, spending.clone())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            assert_eq!(
                quota_window::load(db, row.id).await.unwrap(),
                Some(spending)
            );
        }
        let tx = db.begin().await.unwrap();
        let cursor = SyncCursor {
            cursor_value: json!(1),
            listing_run_id: None,
        };
        sync_cursor::save(&tx, row.id, "main", &cursor, at(1))
            .await
            .unwrap();
        gap::record(&tx, row.id, RunId::new(), "m1", "", at(1))
            .await
            .unwrap();
        integration::delete(&tx, row.id).await.unwrap();
        tx.commit().await.unwrap();
        for table in ["quota_windows", "sync_cursors", "sync_gaps"] {
            assert_eq!(test.count(table).await, 0, "{table}");
        }
    })
    .await;
}

#[tokio::test]
async fn announced_secrets_are_found_by_age() {
    both(async |test| {
        let db = &test.db;
        let mut ids = Vec::new();
        for age in 0..4 {
            let intent = SecretIntent {
                id: SecretIntentId::new(),
                secret_name: format!("nucleus-credentials-{age}"),
                created_at: at(age),
            };
            let tx = db.begin().await.unwrap();
            secret_intent::insert(&tx, &intent).await.unwrap();
            tx.commit().await.unwrap();
            ids.push(intent.id);
        }
        let old = secret_intent::older_than(db, at(3), 9).await.unwrap();
        let found: Vec<SecretIntentId> = old.iter().map(|intent| intent.id).collect();
        assert_eq!(found, ids[..3]);
        assert_eq!(old[1].secret_name, "nucleus-credentials-1");
        assert_eq!(old[1].created_at, at(1));
        assert_eq!(
            secret_intent::older_than(db, at(3), 1).await.unwrap().len(),
            1
        );
        let tx = db.begin().await.unwrap();
        secret_intent::delete(&tx, ids[0]).await.unwrap();
        secret_intent::delete(&tx, ids[0]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            secret_intent::older_than(db, at(3), 9).await.unwrap().len(),
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_key_is_found_by_its_hash_until_it_is_revoked() {
    both(async |test| {
        let db = &test.db;
        let entity = connect_gmail(db).await.entity_id;
        let key = |entity_id, hash: &str| ApiKey {
            id: ApiKeyId::new(),
            entity_id,
            hash: hash.repeat(64),
            scope: "write".to_owned(),
            created_at: at(0),
            revoked_at: None,
            last_used_at: None,
        };
        let (own, operator) = (key(Some(entity), "a"), key(None, "b"));
        assert!(!api_key::has_operator_key(db).await.unwrap());
        let tx = db.begin().await.unwrap();
        api_key::insert(&tx, &own).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!api_key::has_operator_key(db).await.unwrap());
        let tx = db.begin().await.unwrap();
        api_key::insert(&tx, &operator).await.unwrap();
        tx.commit().await.unwrap();
        let tx = db.begin().await.unwrap();
        let twice = api_key::insert(&tx, &key(None, "a")).await;
        assert!(matches!(twice, Err(DbError::Conflict)));
        drop(tx);

        assert!(api_key::has_operator_key(db).await.unwrap());
        let found = api_key::find(db, &own.hash).await.unwrap().unwrap();
        assert_eq!(
            (found.id, found.entity_id, found.created_at),
            (own.id, Some(entity), at(0))
        );
        assert!(api_key::find(db, &"c".repeat(64)).await.unwrap().is_none());
        let list = api_key::list(db).await.unwrap();
        assert_eq!((list[0].id, list[1].id), (operator.id, own.id));

        for now in [1, 2] {
            let tx = db.begin().await.unwrap();
            let revoked = api_key::revoke(&tx, operator.id, at(now)).await.unwrap();
            assert_eq!(revoked.is_some(), now == 1, "a revoked one stays so");
            let nobody = api_key::revoke(&tx, ApiKeyId::new(), at(now)).await;
            assert!(matches!(nobody, Err(DbError::NotFound)));
            tx.commit().await.unwrap();
        }
        assert!(api_key::find(db, &operator.hash).await.unwrap().is_none());
        assert!(!api_key::has_operator_key(db).await.unwrap());
        assert_eq!(api_key::list(db).await.unwrap()[0].revoked_at, Some(at(1)));
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_keeps_the_message_and_the_reason() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let mut letters = Vec::new();
        for attempts in [5, 6] {
            let letter = DeadLetter {
                id: EventId::new(),
                topic: "nucleus-sync-requests".into(),
                event_type: "dev.nucleus.sync.requested.v1".into(),
                entity_id: Some(row.entity_id),
                integration_id: Some(row.id),
                run_id: Some(RunId::new()),
                data: json!({"x": [AWKWARD]}),
                attempts,
                reason: AWKWARD.into(),
                parked_at: at(i64::from(attempts)),
                attributes: None,
                redriven_at: None,
                redriven_run_id: None,
            };
            for is_new in [true, false] {
                let tx = db.begin().await.unwrap();
                let inserted = dead_letter::insert(&tx, &letter).await.unwrap();
                assert_eq!(inserted, is_new, "a message is parked once");
                tx.commit().await.unwrap();
            }
            letters.insert(0, letter);
        }
        let found = dead_letter::newest(db, 100).await.unwrap();
        assert_eq!(format!("{found:?}"), format!("{letters:?}"));
        let (newest, run) = (letters[0].id, RunId::new());
        for is_first in [true, false] {
            let tx = db.begin().await.unwrap();
            let marked = dead_letter::mark_redriven(&tx, newest, run, at(9)).await;
            assert_eq!(marked.unwrap(), is_first);
            tx.commit().await.unwrap();
        }
        let open = dead_letter::newest(db, 100).await.unwrap();
        assert_eq!((open.len(), open[0].id), (1, letters[1].id));
        let all = dead_letter::list(db, true, first(1)).await.unwrap();
        assert!(all.more && all.items[0].redriven_run_id == Some(run));
    })
    .await;
}
