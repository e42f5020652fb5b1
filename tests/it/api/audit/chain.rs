//! Whether the audit log is whole: what `verify` finds in the chains, and by the heads that were logged.

use chrono::{DateTime, TimeDelta, Utc};
use nucleus::{
    audit::{self, Logged, LoggedHead},
    db::audit_log::{self, Head},
};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use super::super::{NOBODY, good_requests, start_embedded};
use crate::harness::TestApp;

/// A log that tells of these heads, all at the same time.
fn log_of(heads: Vec<Head>, at: DateTime<Utc>) -> Logged {
    let logged = |head| LoggedHead { head, at: Some(at) };
    Logged {
        heads: heads.into_iter().map(logged).collect(),
        until: at,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_head_is_logged_each_hour_and_one_that_is_kept_out_of_the_log_is_missed() {
    let app = start_embedded().await;
    let (quiet, busy) = (app.entity().await, app.entity().await);
    let db = &app.app.engine.db;
    let take = async || {
        let now = app.app.now();
        let tx = db.begin().await.unwrap();
        let hour_ago = now - TimeDelta::hours(1);
        let heads = audit_log::take_unlogged(&tx, hour_ago, now, 9)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        log_of(heads, now)
    };
    let begun = take().await;
    assert_eq!(begun.heads.len(), 2);
    assert!(take().await.heads.is_empty());
    // The idle one as well, so that old lines may be thrown away.
    app.clock.advance(TimeDelta::minutes(61));
    assert_eq!(take().await.heads.len(), 2);
    // Who wants to make a chain anew keeps its head out of the log. A mark from the future is none.
    let mut database = good_requests::database(&app).await;
    let mark = async |database: &mut SqliteConnection, time: DateTime<Utc>| {
        let marked = sqlx::query("UPDATE audit_heads SET logged_at = $1 WHERE chain = $2")
            .bind(time)
            .bind(&busy)
            .execute(database)
            .await;
        assert_eq!(marked.unwrap().rows_affected(), 1);
    };
    mark(&mut database, app.app.now() + TimeDelta::days(9999)).await;
    app.clock.advance(TimeDelta::minutes(61));
    assert_eq!(take().await.heads.len(), 2);
    app.connect_for(&busy, json!({})).await;
    app.clock.advance(TimeDelta::minutes(61));
    mark(&mut database, app.app.now()).await;
    let of_others = take().await.heads;
    assert_eq!(of_others.len(), 1);
    assert_eq!(of_others[0].head.chain, quiet);
    app.clock.advance(TimeDelta::minutes(61));

    mark(&mut database, app.app.now()).await;
    let later = take().await.heads;
    assert_eq!(later.len(), 1);

    let find = async |heads: &[LoggedHead]| {
        let logged = Logged {
            heads: heads.to_vec(),
            until: app.app.now(),
        };
        let verified = audit::verify(db, Some(logged)).await.unwrap();
        let found = verified.findings.into_iter();
        let found = found.map(|found| (found.chain, found.problem));
        let uncovered = verified.uncovered.into_iter();
        let uncovered = uncovered.map(|tail| (tail.chain, tail.position));
        (found.collect::<Vec<_>>(), uncovered.collect::<Vec<_>>())
    };
    let missed = "no head was logged since it was written, though others were";
    let late = "its head was not logged when those of other chains were";
    // Who logs nothing at all may not have run.
    let mut heads = begun.heads.clone();
    let tail = vec![(busy.clone(), 2)];
    assert_eq!(find(&heads).await, (vec![], tail.clone()));
    // Rows that are made anew are as young as one likes, but the others' heads go on.
    heads.extend(of_others);
    assert_eq!(find(&heads).await, (vec![(busy.clone(), late)], tail));
    heads.extend(later);
    let both = vec![(busy.clone(), missed), (busy.clone(), late)];
    assert_eq!(find(&heads).await, (both.clone(), vec![]));
    heads.retain(|logged| logged.head.chain == quiet);
    assert_eq!(find(&heads).await, (both, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_off_is_not_accused_and_its_next_pass_answers_for_all() {
    let app = start_embedded().await;
    let entity = app.entity().await;
    let db = &app.app.engine.db;
    let take = async || {
        let tx = db.begin().await.unwrap();
        let heads = audit_log::take_unlogged(&tx, app.app.now(), app.app.now(), 9)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        log_of(heads, app.app.now()).heads
    };
    let mut heads = take().await;
    app.clock.advance(TimeDelta::minutes(50));
    app.connect_for(&entity, json!({})).await;
    let find = async |heads: &[LoggedHead]| {
        let logged = Logged {
            heads: heads.to_vec(),
            until: app.app.now(),
        };
        let verified = audit::verify(db, Some(logged)).await.unwrap();
        assert_eq!(verified.findings, []);
        verified.uncovered
    };
    assert_eq!(find(&heads).await, []);
    app.clock.advance(TimeDelta::days(3));
    let uncovered = find(&heads).await;
    assert_eq!(uncovered.len(), 1);
    assert_eq!((&uncovered[0].chain, uncovered[0].position), (&entity, 2));
    assert!(uncovered[0].rows >= 2, "{uncovered:?}");
    // A command writes something down while nothing else runs.
    app.entity().await;
    heads.extend(take().await);
    assert_eq!(find(&heads).await, []);
}

/// One thing done to the tables, and where it is found.
async fn is_found(database: &mut SqliteConnection, app: &TestApp, change: &str) -> usize {
    let mut tx = database.begin().await.unwrap();
    let changed = sqlx::raw_sql(sqlx::AssertSqlSafe(change.to_owned()))
        .execute(&mut *tx)
        .await;
    assert!(changed.unwrap().rows_affected() > 0, "{change}");
    tx.commit().await.unwrap();
    let verified = audit::verify(&app.app.engine.db, None).await.unwrap();
    verified.findings.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_a_gap_and_a_cut_tail_are_found() {
    let app = start_embedded().await;
    let entity = app.entity().await;
    app.connect_for(&entity, json!({})).await;
    app.app
        .create_key(None, nucleus::db::api_key::KeyScope::Read)
        .await
        .unwrap();
    let db = &app.app.engine.db;
    let clean = audit::verify(db, None).await.unwrap();
    assert!(clean.findings.is_empty() && clean.chains == 2, "{clean:?}");
    let tx = db.begin().await.unwrap();
    let now = app.app.now();
    let logged = audit_log::take_unlogged(&tx, now, now, 9).await.unwrap();
    assert_eq!(logged.len(), 2);
    assert!(
        audit_log::take_unlogged(&tx, now, now, 9)
            .await
            .unwrap()
            .is_empty()
    );
    tx.commit().await.unwrap();
    let logged = log_of(logged, now);
    let kept = audit::verify(db, Some(logged.clone())).await.unwrap();
    assert!(
        kept.findings.is_empty() && kept.logged_heads == 2,
        "{kept:?}"
    );

    let mut database = good_requests::database(&app).await;
    sqlx::raw_sql("CREATE TABLE log AS SELECT * FROM audit_log; CREATE TABLE heads AS SELECT * FROM audit_heads")
        .execute(&mut database)
        .await
        .unwrap();
    let columns = [
        ("at", "'2020-01-01T00:00:00+00:00'"),
        ("actor", "'entity'"),
        ("key_id", "entity_id"),
        ("entity_id", "NULL"),
        ("action", "'secret.delete'"),
        ("target", "'another'"),
        ("outcome", "'failure'"),
        ("attempt_id", "id"),
        ("request_id", "'another'"),
        ("interface", "'cli'"),
        ("address", "'192.0.2.1'"),
        ("previous_hash", "'0'"),
        ("hash", "'0'"),
    ];
    let edits = columns.map(|(column, value)| {
        format!("UPDATE audit_log SET {column} = {value} WHERE chain = '{entity}' AND position = 2")
    });
    let mut changes = edits.to_vec();
    let of_chain = format!("WHERE chain = '{entity}'");
    let last = format!("(SELECT max(position) FROM audit_log {of_chain})");
    for change in [
        format!("DELETE FROM audit_log {of_chain} AND position = 2"),
        format!("DELETE FROM audit_log {of_chain} AND position = 1"),
        format!("DELETE FROM audit_log {of_chain} AND position = {last}"),
        format!("DELETE FROM audit_log {of_chain}"),
        "DELETE FROM audit_heads WHERE chain = 'operator'".to_owned(),
        "UPDATE audit_heads SET hash = '0' WHERE chain = 'operator'".to_owned(),
        format!("UPDATE audit_log SET position = position + 100 {of_chain} AND position = {last}"),
    ] {
        changes.push(change);
    }
    for change in changes {
        let findings = is_found(&mut database, &app, &change).await;
        assert!(findings > 0, "not found: {change}");
        sqlx::raw_sql(
            "DELETE FROM audit_log; INSERT INTO audit_log SELECT * FROM log;
             DELETE FROM audit_heads; INSERT INTO audit_heads SELECT * FROM heads",
        )
        .execute(&mut database)
        .await
        .unwrap();
    }
    // A whole chain and its head taken away, or cut with its head mended, is told by the logged heads.
    let cut = format!(
        "DELETE FROM audit_log {of_chain} AND position = {last};
         UPDATE audit_heads SET position = {last},
             hash = (SELECT hash FROM audit_log {of_chain} AND position = {last}) {of_chain}"
    );
    let whole = format!("DELETE FROM audit_log {of_chain}; DELETE FROM audit_heads {of_chain}");
    for change in [cut, whole] {
        assert_eq!(is_found(&mut database, &app, &change).await, 0, "{change}");
        let verified = audit::verify(db, Some(logged.clone())).await.unwrap();
        assert_eq!(verified.findings.len(), 1, "{change}");
        assert_eq!(verified.findings[0].chain, entity);
    }
    assert_ne!(entity, NOBODY);
}
