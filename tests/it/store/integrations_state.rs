//! How an integration changes: by its owner, by what a run leaves, by schedulers and refreshers, of
//! whom one wins.

use futures_util::future::join_all;
use nucleus::{
    db::{
        DbError,
        integration::{self, Update},
        refresh_lease::{self, Leased, RefreshLease},
        standing::{self, RunResult},
    },
    domain::{
        IntegrationId, ServiceName,
        sync::{IntegrationStatus, Scope},
    },
};
use serde_json::json;

use super::{
    super::db::both, AWKWARD, add_entity, add_integration, at, connect_gmail, integration_of, named,
};

#[tokio::test]
async fn an_update_changes_what_it_names_and_nothing_else() {
    both(async |test| {
        let db = &test.db;
        let mut row = integration_of(add_entity(db, "Ada").await, ServiceName::Gmail);
        row.display_name = Some("before".into());
        row.description = Some("stays".into());
        let row = add_integration(db, row).await;
        let change = Update {
            display_name: Some(None),
            config: Some(json!({"a": AWKWARD})),
            status: Some(IntegrationStatus::Inactive),
            next_sync_at: Some(at(9)),
            ..Update::default()
        };
        let tx = db.begin().await.unwrap();
        integration::update(&tx, row.id, change, at(5))
            .await
            .unwrap();
        let nobody = integration::update(&tx, IntegrationId::new(), Update::default(), at(5)).await;
        assert!(matches!(nobody, Err(DbError::NotFound)));
        tx.commit().await.unwrap();
        let found = integration::find(db, Scope::Operator, row.id)
            .await
            .unwrap();
        assert_eq!(found.display_name, None);
        assert_eq!(found.description.as_deref(), Some("stays"));
        assert_eq!(found.config, json!({"a": AWKWARD}));
        assert_eq!(found.sync_settings, json!({}));
        assert_eq!(found.status, "inactive");
        assert_eq!(found.next_sync_at, Some(at(9)));
        assert_eq!((found.created_at, found.updated_at), (at(0), at(5)));

        // What the service says does not switch it on again.
        let tx = db.begin().await.unwrap();
        standing::set_status(&tx, &row, IntegrationStatus::Error, Some("m"), at(6))
            .await
            .unwrap();
        let result = RunResult {
            last_sync_status: "success",
            message: None,
            status: Some(IntegrationStatus::Active),
            next_sync_at: Some(at(90)),
            failures: 0,
            now: at(7),
        };
        standing::set_run_result(&tx, row.id, result).await.unwrap();
        tx.commit().await.unwrap();
        let found = integration::find(db, Scope::Operator, row.id)
            .await
            .unwrap();
        assert_eq!(found.status, "inactive");
        assert_eq!(found.last_sync_at, Some(at(7)));
    })
    .await;
}

#[tokio::test]
async fn a_failed_run_leaves_the_time_of_the_last_good_one() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        for (status, message, failures, now) in [
            ("partial", None, 0, at(1)),
            ("failed", Some(AWKWARD), 1, at(2)),
        ] {
            let tx = db.begin().await.unwrap();
            let result = RunResult {
                last_sync_status: status,
                message,
                status: message.map(|_| IntegrationStatus::Error),
                next_sync_at: Some(at(100)),
                failures,
                now,
            };
            standing::set_run_result(&tx, row.id, result).await.unwrap();
            tx.commit().await.unwrap();
        }
        let found = integration::find(db, Scope::Operator, row.id)
            .await
            .unwrap();
        assert_eq!(found.last_sync_at, Some(at(1)));
        assert_eq!(found.last_sync_status.as_deref(), Some("failed"));
        assert_eq!(found.sync_error_message.as_deref(), Some(AWKWARD));
        assert_eq!(found.sync_failures, 1);
        assert_eq!(found.status, "error");
        assert_eq!(found.next_sync_at, Some(at(100)));
    })
    .await;
}

#[tokio::test]
async fn a_secret_is_pinned_only_over_the_version_it_replaces() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let tx = db.begin().await.unwrap();
        integration::pin_secret(&tx, row.id, None, "s/1", false, at(1))
            .await
            .unwrap();
        integration::set_account(&tx, row.id, named("ada@example.org"), at(1))
            .await
            .unwrap();
        integration::pin_secret(&tx, row.id, Some("s/1"), "s/2", false, at(2))
            .await
            .unwrap();
        for stale in [None, Some("s/1")] {
            let refused = integration::pin_secret(&tx, row.id, stale, "s/9", false, at(3)).await;
            assert!(matches!(refused, Err(DbError::Conflict)));
        }
        standing::set_status(&tx, &row, IntegrationStatus::Expired, Some("gone"), at(3))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let found = integration::find(db, Scope::Operator, row.id)
            .await
            .unwrap();
        assert_eq!(found.secret_path.as_deref(), Some("s/2"));
        assert_eq!(found.refresh_generation, 2);
        assert!(found.account_verified);
        assert_eq!(found.status, "expired");

        let tx = db.begin().await.unwrap();
        integration::pin_secret(&tx, row.id, Some("s/2"), "s/3", true, at(4))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let found = integration::find(db, Scope::Operator, row.id)
            .await
            .unwrap();
        assert_eq!(found.account.as_deref(), Some("ada@example.org"));
        assert!(!found.account_verified);
        assert_eq!(found.status, "active");
    })
    .await;
}

#[tokio::test]
async fn one_process_at_a_time_refreshes() {
    both(async |test| {
        let db = &test.db;
        let id = connect_gmail(db).await.id;
        let look = async |abandoned| {
            let leased = refresh_lease::lease(db, id, 60_000, abandoned).await;
            leased.unwrap()
        };
        let lease = async || match look(None).await {
            Leased::Ours(lease) => Some(lease),
            Leased::Theirs(_) => None,
        };
        let won: Vec<RefreshLease> = join_all((0..16).map(|_| lease()))
            .await
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(won.len(), 1);
        let before = RefreshLease {
            generation: won[0].generation - 1,
            sent_at: None,
        };
        refresh_lease::release(db, id, &before).await.unwrap();
        assert_eq!(
            lease().await,
            None,
            "released by somebody who had it before"
        );
        refresh_lease::release(db, id, &won[0]).await.unwrap();
        let second = lease().await.unwrap();
        assert!(second.generation > won[0].generation);

        // Its holder is silent past the lease.
        test.sql("UPDATE entity_integrations SET refresh_lease_until = 1")
            .await;
        let third = lease().await.unwrap();
        refresh_lease::release(db, id, &second).await.unwrap();
        assert_eq!(
            lease().await,
            None,
            "the late holder must not give the third's right away"
        );

        // Where the refresh token was sent, only who has seen that nobody renews it may take it.
        let sent = refresh_lease::sent(db, id, third.generation, at(1)).await;
        assert!(sent.unwrap());
        test.sql("UPDATE entity_integrations SET refresh_lease_until = 1")
            .await;
        assert!(matches!(look(None).await, Leased::Theirs(1)));
        assert!(matches!(look(Some(2)).await, Leased::Theirs(1)));
        let renewed = refresh_lease::renew(db, id, third.generation, 60_000).await;
        assert!(renewed.unwrap());
        assert!(matches!(look(Some(1)).await, Leased::Theirs(_)));
        test.sql("UPDATE entity_integrations SET refresh_lease_until = 1")
            .await;
        let Leased::Ours(third) = look(Some(1)).await else {
            panic!("a dead process's right is taken");
        };
        assert_eq!(third.sent_at, Some(at(1)));

        // A new version ends the lease: what was to be refreshed has been.
        let tx = db.begin().await.unwrap();
        integration::pin_secret(&tx, id, None, "s/1", false, at(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        refresh_lease::release(db, id, &third).await.unwrap();
        let fourth = lease().await.expect("pinned and released, so free");
        refresh_lease::release(db, id, &third).await.unwrap();
        assert_eq!(lease().await, None, "{fourth:?} is held");
    })
    .await;
}

#[tokio::test]
async fn what_is_due_comes_longest_overdue_first_and_is_moved_on_once() {
    both(async |test| {
        let db = &test.db;
        let whole = chrono::DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let micros = |n| whole + chrono::TimeDelta::microseconds(n);
        let mut ids = Vec::new();
        // The texts of these times in SQLite differ in length.
        for (status, next) in [
            ("active", Some(micros(500_000))),
            ("error", Some(micros(0))),
            ("active", Some(micros(500_001))),
            ("active", Some(micros(1))),
            ("active", Some(micros(500_002))),
            ("inactive", Some(micros(0))),
            ("revoked", Some(micros(0))),
            ("expired", Some(micros(0))),
            ("active", None),
        ] {
            let mut row = integration_of(add_entity(db, "Ada").await, ServiceName::Gmail);
            row.status = status.into();
            row.next_sync_at = next;
            ids.push(add_integration(db, row).await.id);
        }
        let due = standing::due(db, micros(500_001), 10).await.unwrap();
        let found: Vec<IntegrationId> = due.iter().map(|row| row.id).collect();
        assert_eq!(found, [ids[1], ids[3], ids[0], ids[2]]);
        assert_eq!(
            standing::due(db, micros(500_001), 2).await.unwrap().len(),
            2
        );
        assert!(standing::due(db, micros(-1), 10).await.unwrap().is_empty());

        let before = due[0].next_sync_at.unwrap();
        let schedulers = join_all((0..8).map(|_| async {
            let tx = db.begin().await.unwrap();
            let moved = standing::move_next_sync(&tx, ids[1], before, at(3600))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            moved
        }))
        .await;
        assert_eq!(schedulers.iter().filter(|&&moved| moved).count(), 1);
    })
    .await;
}
