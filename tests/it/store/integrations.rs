//! Entities and integrations: what is kept, who sees it, and what is left.

use nucleus::{
    db::{
        DbError, Slicing, entity, former_integration,
        grant::{self, Grant},
        integration::{self, Filter},
        outbox, raw_data, standing, sync_run,
    },
    domain::{
        EntityId, IntegrationId, ServiceName,
        sync::{IntegrationStatus, Scope},
    },
};
use serde_json::json;

use super::{
    super::db::both, AWKWARD, add_entity, add_integration, add_run, at, changed, connect_gmail,
    first, integration_of, named, store,
};

#[tokio::test]
async fn entities_are_listed_newest_first_by_slices_and_by_scope() {
    both(async |test| {
        let db = &test.db;
        let mut ids = Vec::new();
        for name in ["a", AWKWARD, "c", "d", "e"] {
            ids.push(add_entity(db, name).await);
        }
        ids.reverse();
        let page = entity::list(db, Scope::Operator, first(2)).await.unwrap();
        assert_eq!((page.items[0].id, page.items[1].id), (ids[0], ids[1]));
        assert!(page.more);
        let rest = Slicing {
            after: Some(ids[1].0),
            limit: 3,
        };
        let page = entity::list(db, Scope::Operator, rest).await.unwrap();
        assert!(!page.more);
        let found: Vec<EntityId> = page.items.iter().map(|row| row.id).collect();
        assert_eq!(found, ids[2..]);
        assert_eq!(page.items[1].name, AWKWARD);
        assert_eq!(page.items[1].created_at, at(0));

        let own = entity::list(db, Scope::Entity(ids[3]), first(9))
            .await
            .unwrap();
        assert_eq!((own.items.len(), own.items[0].id), (1, ids[3]));

        assert!(entity::exists(db, ids[0]).await.unwrap());
        assert!(!entity::exists(db, EntityId::new()).await.unwrap());
        let tx = db.begin().await.unwrap();
        entity::delete(&tx, ids[0]).await.unwrap();
        assert!(matches!(
            entity::delete(&tx, ids[0]).await,
            Err(DbError::NotFound)
        ));
        tx.commit().await.unwrap();
        assert!(!entity::exists(db, ids[0]).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn an_integration_reads_back_as_written() {
    both(async |test| {
        let db = &test.db;
        let entity = add_entity(db, "Ada").await;
        let mut row = integration_of(entity, ServiceName::GoogleCalendar);
        row.service_type = Some("calendar".into());
        row.display_name = Some(AWKWARD.into());
        row.description = Some(String::new());
        row.secret_path = Some("secret/1".into());
        row.next_sync_at = Some(at(60));
        row.token_expires_at = Some(at(-1));
        row.scopes = json!(["a b", AWKWARD]);
        row.config = json!({"deep": [{"x": null, "y": 1.5, "z": -9_007_199_254_740_993_i64}]});
        row.sync_settings = json!({"interval_minutes": 5, "on": true});
        row.meta_data = json!(AWKWARD);
        row.updated_at = at(7);
        row.created_by = Some("operator".into());
        let row = add_integration(db, row).await;

        let found = integration::find(db, Scope::Entity(entity), row.id)
            .await
            .unwrap();
        assert_eq!(format!("{found:?}"), format!("{row:?}"));
        assert_eq!(found.status().unwrap(), IntegrationStatus::Active);
        assert_eq!(found.service().unwrap(), ServiceName::GoogleCalendar);
    })
    .await;
}

#[tokio::test]
async fn an_entity_has_a_service_once() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let tx = db.begin().await.unwrap();
        let again = integration_of(row.entity_id, ServiceName::Gmail);
        let refused = integration::insert(&tx, &again).await;
        assert!(matches!(refused, Err(DbError::Conflict)), "{refused:?}");
        drop(tx);
        add_integration(db, integration_of(row.entity_id, ServiceName::Github)).await;
        connect_gmail(db).await;
        let stray = integration_of(EntityId::new(), ServiceName::Gmail);
        let tx = db.begin().await.unwrap();
        let refused = integration::insert(&tx, &stray).await;
        assert!(matches!(refused, Err(DbError::Other(_))), "{refused:?}");
        drop(tx);
        assert_eq!(test.count("entity_integrations").await, 3);
    })
    .await;
}

#[tokio::test]
async fn another_entity_sees_nothing_and_changes_nothing() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let run = add_run(db, &row).await;
        store(db, &row, &["m1"]).await;
        let source = outbox::Source {
            entity_id: row.entity_id,
            integration_id: row.id,
            service_name: "gmail".into(),
            run_id: Some(run),
            traceparent: None,
        };
        let tx = db.begin().await.unwrap();
        outbox::append_dna_events(&tx, &source, changed(1), at(0))
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let own = Scope::Entity(row.entity_id);
        let records = raw_data::list(db, own, row.id, true, first(5))
            .await
            .unwrap();
        let record = records.items[0].id;
        for (scope, seen) in [
            (Scope::Operator, 1),
            (own, 1),
            (Scope::Entity(add_entity(db, "Mallory").await), 0),
        ] {
            let found = integration::find(db, scope, row.id).await;
            assert_eq!(found.is_ok(), seen == 1);
            let list = integration::list(db, scope, &Filter::default(), first(5))
                .await
                .unwrap();
            assert_eq!(list.items.len(), seen);
            let of_owner = Filter {
                entity_id: Some(row.entity_id),
                ..Filter::default()
            };
            let list = integration::list(db, scope, &of_owner, first(5))
                .await
                .unwrap();
            assert_eq!(list.items.len(), seen);
            let runs = sync_run::list(db, scope, row.id, first(5)).await.unwrap();
            assert_eq!(runs.items.len(), seen);
            assert_eq!(sync_run::find(db, scope, run).await.is_ok(), seen == 1);
            let records = raw_data::list(db, scope, row.id, true, first(5))
                .await
                .unwrap();
            assert_eq!(records.items.len(), seen);
            assert_eq!(
                raw_data::find(db, scope, record, true).await.is_ok(),
                seen == 1
            );
            let events = outbox::events_after(db, scope, 0, 5).await.unwrap();
            assert_eq!(events.len(), seen);
            let tx = db.begin().await.unwrap();
            assert_eq!(
                integration::find_in(&tx, scope, row.id).await.is_ok(),
                seen == 1
            );
            if seen == 0 {
                let refused = sync_run::cancel(&tx, scope, run, at(1)).await;
                assert!(matches!(refused, Err(DbError::NotFound)));
            }
            tx.commit().await.unwrap();
        }
        assert_eq!(super::run_status(db, run).await, "queued");
    })
    .await;
}

#[tokio::test]
async fn integrations_are_filtered_and_sliced() {
    both(async |test| {
        let db = &test.db;
        let mut ids = Vec::new();
        for service in ServiceName::ALL {
            let entity = add_entity(db, "one each").await;
            let mut row = integration_of(entity, service);
            if ids.len() % 3 == 0 {
                row.status = "error".into();
            }
            ids.push(add_integration(db, row).await.id);
        }
        ids.reverse();
        let filter = |service, status| Filter {
            entity_id: None,
            service_name: service,
            status,
            ..Filter::default()
        };
        let mut seen: Vec<IntegrationId> = Vec::new();
        loop {
            let slicing = Slicing {
                after: seen.last().map(|id| id.0),
                limit: 4,
            };
            let page = integration::list(db, Scope::Operator, &Filter::default(), slicing)
                .await
                .unwrap();
            seen.extend(page.items.iter().map(|row| row.id));
            if !page.more {
                break;
            }
            assert_eq!(page.items.len(), 4);
        }
        assert_eq!(seen, ids);
        for (filter, expected) in [
            (filter(Some(ServiceName::Slack), None), 1),
            (filter(None, Some(IntegrationStatus::Error)), 3),
            (filter(None, Some(IntegrationStatus::Revoked)), 0),
            (
                filter(Some(ServiceName::Gmail), Some(IntegrationStatus::Error)),
                1,
            ),
            (
                filter(Some(ServiceName::Gmail), Some(IntegrationStatus::Active)),
                0,
            ),
        ] {
            let page = integration::list(db, Scope::Operator, &filter, first(50))
                .await
                .unwrap();
            assert_eq!(page.items.len(), expected, "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_shares_an_account_and_who_had_it_is_known() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let calendar = integration_of(row.entity_id, ServiceName::GoogleCalendar);
        let calendar = add_integration(db, calendar).await;
        let tx = db.begin().await.unwrap();
        for id in [row.id, calendar.id] {
            integration::set_account(&tx, id, named(AWKWARD), at(1))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let google = [ServiceName::Gmail, ServiceName::GoogleCalendar];
        let sharing = async |services: &[ServiceName], account: Option<&str>| {
            let grant = Grant {
                of: Some(row.id),
                entity_id: row.entity_id,
                account,
            };
            grant::sharing(db, &grant, services).await.unwrap()
        };
        assert_eq!(sharing(&google, Some(AWKWARD)).await, 1);
        assert_eq!(sharing(&google[..1], Some(AWKWARD)).await, 0);
        assert_eq!(sharing(&google, Some("another")).await, 0);
        // An account that is not known may be the same.
        assert_eq!(sharing(&google, None).await, 1);
        // Nobody granted what was given by hand.
        let mut by_hand = integration_of(row.entity_id, ServiceName::Slack);
        by_hand.credential_type = "bearer_token".to_owned();
        let by_hand = add_integration(db, by_hand).await;
        let tx = db.begin().await.unwrap();
        integration::set_account(&tx, by_hand.id, named(AWKWARD), at(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(sharing(&[ServiceName::Slack], Some(AWKWARD)).await, 0);

        let tx = db.begin().await.unwrap();
        standing::set_status(&tx, &calendar, IntegrationStatus::Revoked, None, at(2))
            .await
            .unwrap();
        former_integration::insert(&tx, &row, AWKWARD, at(2))
            .await
            .unwrap();
        assert_eq!(
            former_integration::of_account(&tx, &row, AWKWARD)
                .await
                .unwrap(),
            [row.id]
        );
        assert!(
            former_integration::of_account(&tx, &row, "another")
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            former_integration::of_account(&tx, &calendar, AWKWARD)
                .await
                .unwrap()
                .is_empty()
        );
        former_integration::delete(&tx, row.id).await.unwrap();
        assert!(
            former_integration::of_account(&tx, &row, AWKWARD)
                .await
                .unwrap()
                .is_empty()
        );
        tx.commit().await.unwrap();
        assert_eq!(sharing(&google, Some(AWKWARD)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_removed_integration_takes_its_runs_and_leaves_its_records() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        add_run(db, &row).await;
        store(db, &row, &["m1"]).await;
        let tx = db.begin().await.unwrap();
        integration::delete(&tx, row.id).await.unwrap();
        assert!(matches!(
            integration::delete(&tx, row.id).await,
            Err(DbError::NotFound)
        ));
        tx.commit().await.unwrap();
        assert_eq!(test.count("sync_runs").await, 0);
        assert_eq!(test.count("raw_data").await, 1);

        let tx = db.begin().await.unwrap();
        entity::delete(&tx, row.entity_id).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(test.count("raw_data").await, 0);
    })
    .await;
}
