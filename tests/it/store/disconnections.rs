//! `disconnections`: one process at a time carries one out, and nobody once it is over.

use nucleus::{
    db::{
        Db, DbError, Limits,
        disconnection::{self, Disconnection, DisconnectionId},
        integration::Integration,
    },
    domain::ids::Id,
};

use super::{
    super::db::{TestDb, both},
    at, connect_gmail,
    runs_races::until_somebody_waits,
};

/// One whose carrier is gone.
async fn abandon(test: &TestDb, of: &Integration) -> DisconnectionId {
    let row = Disconnection {
        id: Id::new(),
        integration_id: of.id,
        entity_id: of.entity_id,
        service_name: of.service_name.clone(),
        records: None,
        requested_at: at(0),
        outcome: None,
        detail: None,
        record_count: None,
    };
    let tx = test.db.begin().await.unwrap();
    disconnection::begin(&tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    test.sql("UPDATE disconnections SET lease_until = 1").await;
    row.id
}

/// SQLite has one writer, so this can only happen in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_take_one_at_once_one_has_it() {
    let test = TestDb::postgres().await;
    let id = abandon(&test, &connect_gmail(&test.db).await).await;
    let other = Db::connect(&test.url, Limits::of(1)).await.unwrap();
    let tx = test.db.begin().await.unwrap();
    disconnection::go_on(&tx, id).await.unwrap();
    let committing = async {
        until_somebody_waits(&test).await;
        tx.commit().await.unwrap();
    };
    let (taken, ()) = tokio::join!(disconnection::take_abandoned(&other), committing);
    assert!(taken.unwrap().is_none(), "it was taken twice");
}

#[tokio::test]
async fn nobody_goes_on_with_what_is_over() {
    both(async |test| {
        let db = &test.db;
        let id = abandon(test, &connect_gmail(db).await).await;
        let taken = disconnection::take_abandoned(db).await.unwrap().unwrap();
        assert_eq!(taken.id, id);
        assert!(disconnection::take_abandoned(db).await.unwrap().is_none());
        let tx = db.begin().await.unwrap();
        disconnection::answered(&tx, id, "revoked", None, at(1))
            .await
            .unwrap();
        let current = disconnection::go_on(&tx, id).await.unwrap();
        assert_eq!(current.outcome.as_deref(), Some("revoked"));
        assert!(disconnection::finish(&tx, &taken, at(2)).await.unwrap());
        let late = disconnection::answered(&tx, id, "failed", None, at(3)).await;
        assert!(matches!(late, Err(DbError::NotFound)), "{late:?}");
        let late = disconnection::go_on(&tx, id).await;
        assert!(matches!(late, Err(DbError::NotFound)), "{late:?}");
        assert!(!disconnection::finish(&tx, &taken, at(4)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}
