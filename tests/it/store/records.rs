//! `raw_data`: an item is stored once, changed, erased, let go and adopted.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nucleus::{
    db::{
        DbError, Slicing,
        integration::Integration,
        raw_data::{self, NewRow},
        removal,
    },
    domain::{IntegrationId, RecordId, record::Change, sync::Scope},
};
use serde_json::json;

use super::{
    super::db::{Kind, TestDb, both},
    AWKWARD, at, connect_gmail, first, new_row, store, strings,
};

async fn id_of(test: &TestDb, of: &Integration, external_id: &str) -> RecordId {
    let tx = test.db.begin().await.unwrap();
    let found = raw_data::lookup(&tx, of.id, &strings(&[external_id]))
        .await
        .unwrap();
    found[external_id].id
}

#[tokio::test]
async fn a_record_reads_back_as_written_and_keeps_its_id_when_rewritten() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        let mut new = new_row(&row, AWKWARD, &["INBOX", AWKWARD]);
        new.data_content = AWKWARD.repeat(1000);
        new.meta_data["size_bytes"] = json!(9_007_199_254_740_993_i64);
        new.meta_data["ratio"] = json!(0.1);
        let (id, content) = (new.id, new.data_content.clone());
        let meta_data = new.meta_data.clone();
        let tx = db.begin().await.unwrap();
        raw_data::upsert(&tx, row.entity_id, row.id, vec![], at(0))
            .await
            .unwrap();
        let rows = vec![new, new_row(&row, "m2", &[])];
        raw_data::upsert(&tx, row.entity_id, row.id, rows, at(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let found = raw_data::find(db, Scope::Operator, id, false)
            .await
            .unwrap();
        assert_eq!(
            (found.entity_id, found.integration_id),
            (row.entity_id, Some(row.id))
        );
        assert_eq!(found.external_id.as_deref(), Some(AWKWARD));
        assert_eq!(found.data_content, Some(content));
        assert_eq!(found.meta_data, Some(meta_data));
        assert_eq!(found.content_hash.unwrap(), format!("hash of {AWKWARD}"));
        assert_eq!((found.ingested_at, found.updated_at), (at(1), Some(at(1))));
        assert_eq!(
            (found.data_type.as_str(), found.deleted_at),
            ("email", None)
        );

        let tx = db.begin().await.unwrap();
        let mut again = new_row(&row, AWKWARD, &["SENT"]);
        again.content_hash = "another".into();
        raw_data::upsert(&tx, row.entity_id, row.id, vec![again], at(2))
            .await
            .unwrap();
        let ids = strings(&[AWKWARD, "m2", "m3"]);
        let stored = raw_data::lookup(&tx, row.id, &ids).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(stored.len(), 2);
        assert_eq!((stored[AWKWARD].id, stored[AWKWARD].deleted), (id, false));
        assert_eq!(stored[AWKWARD].labels, ["SENT"]);
        assert!(stored["m2"].labels.is_empty());
        let change = stored[AWKWARD].changed(AWKWARD, Change::Updated);
        assert_eq!((change.id, change.content_hash.as_str()), (id, "another"));
        let found = raw_data::find(db, Scope::Operator, id, false)
            .await
            .unwrap();
        assert_eq!((found.ingested_at, found.updated_at), (at(1), Some(at(2))));
        assert_eq!(test.count("raw_data").await, 2);
    })
    .await;
}

#[tokio::test]
async fn long_lists_of_ids_are_looked_up_whole() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        assert!(!raw_data::has_any(db, row.id).await.unwrap());
        let ids: Vec<String> = (0..1201).map(|index| format!("m{index}")).collect();
        for chunk in ids.chunks(400) {
            let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
            store(db, &row, &chunk).await;
        }
        assert!(raw_data::has_any(db, row.id).await.unwrap());
        assert!(!raw_data::has_any(db, IntegrationId::new()).await.unwrap());
        let mut asked = ids.clone();
        asked.push("absent".into());
        let found = raw_data::stored_ids(db, row.id, &asked).await.unwrap();
        assert_eq!(found, ids.iter().cloned().collect::<HashSet<_>>());
        let tx = db.begin().await.unwrap();
        let found = raw_data::lookup(&tx, row.id, &asked).await.unwrap();
        assert_eq!(found.len(), ids.len());
        assert!(raw_data::lookup(&tx, row.id, &[]).await.unwrap().is_empty());
        assert!(
            raw_data::lookup(&tx, IntegrationId::new(), &ids)
                .await
                .unwrap()
                .is_empty()
        );
        let all: Vec<RecordId> = found.values().map(|stored| stored.id).collect();
        raw_data::erase(&tx, row.id, &all, at(2)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(
            raw_data::stored_ids(db, row.id, &ids)
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn labels_change_alone() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        store(db, &row, &["m1", "m2"]).await;
        let id = id_of(test, &row, "m1").await;
        let labels = strings(&["Label_1", AWKWARD, "UNREAD"]);
        let before = raw_data::find(db, Scope::Operator, id, false)
            .await
            .unwrap();
        let tx = db.begin().await.unwrap();
        raw_data::set_labels(&tx, id, &labels, at(4)).await.unwrap();
        let found = raw_data::lookup(&tx, row.id, &strings(&["m1", "m2"]))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(found["m1"].labels, labels);
        assert_eq!(found["m2"].labels, ["INBOX"]);
        assert_eq!(found["m1"].content_hash, "hash of m1");
        let after = raw_data::find(db, Scope::Operator, id, false)
            .await
            .unwrap();
        let mut expected = before.meta_data.unwrap();
        expected["labels"] = json!(labels);
        assert_eq!(after.meta_data, Some(expected));
        assert_eq!(
            (after.data_content, after.updated_at),
            (before.data_content, Some(at(4)))
        );

        let tx = db.begin().await.unwrap();
        raw_data::set_labels(&tx, id, &[], at(5)).await.unwrap();
        let found = raw_data::lookup(&tx, row.id, &strings(&["m1"]))
            .await
            .unwrap();
        assert!(found["m1"].labels.is_empty());
        drop(tx);
    })
    .await;
}

#[tokio::test]
async fn an_erased_record_keeps_ids_and_hash_and_nothing_personal() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        store(db, &row, &["m1", "m2", "m3"]).await;
        let id = id_of(test, &row, "m2").await;
        let tx = db.begin().await.unwrap();
        raw_data::erase(&tx, row.id, &[id], at(6)).await.unwrap();
        let found = raw_data::lookup(&tx, row.id, &strings(&["m2"]))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert!(found["m2"].deleted && found["m2"].labels.is_empty());
        assert_eq!(found["m2"].content_hash, "hash of m2");

        let hidden = raw_data::find(db, Scope::Operator, id, false).await;
        assert!(matches!(hidden, Err(DbError::NotFound)));
        let erased = raw_data::find(db, Scope::Operator, id, true).await.unwrap();
        assert_eq!(
            (erased.data_content, erased.deleted_at),
            (None, Some(at(6)))
        );
        let left = json!({"integration_id": row.id, "trust": "untrusted_external", "labels": []});
        assert_eq!(erased.meta_data, Some(left));
        for (deleted, seen) in [(false, 2), (true, 3)] {
            let page = raw_data::list(db, Scope::Operator, row.id, deleted, first(9))
                .await
                .unwrap();
            assert_eq!(page.items.len(), seen);
        }
        let stored = raw_data::stored_ids(db, row.id, &strings(&["m1", "m2"]))
            .await
            .unwrap();
        assert_eq!(stored, HashSet::from(["m1".to_owned()]));

        // It came back at the service.
        store(db, &row, &["m2"]).await;
        let back = raw_data::find(db, Scope::Operator, id, false)
            .await
            .unwrap();
        assert_eq!(back.data_content.as_deref(), Some("text of m2"));
        assert_eq!(back.deleted_at, None);
    })
    .await;
}

#[tokio::test]
async fn records_are_listed_newest_first_by_slices() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        store(db, &row, &["m1", "m2", "m3", "m4", "m5"]).await;
        store(db, &connect_gmail(db).await, &["m1"]).await;
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let slicing = Slicing { after, limit: 2 };
            let page = raw_data::list(db, Scope::Operator, row.id, false, slicing)
                .await
                .unwrap();
            after = page.items.last().map(|record| record.id.0);
            seen.extend(
                page.items
                    .into_iter()
                    .filter_map(|record| record.external_id),
            );
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, ["m5", "m4", "m3", "m2", "m1"]);
    })
    .await;
}

#[tokio::test]
async fn records_of_a_removed_connection_are_adopted_once() {
    both(async |test| {
        let db = &test.db;
        let (old, older) = (connect_gmail(db).await, connect_gmail(db).await);
        let new = connect_gmail(db).await;
        store(db, &old, &["m1", "m2", "m3"]).await;
        store(db, &older, &["m3", "m4"]).await;
        store(db, &new, &["m1"]).await;
        let kept = id_of(test, &old, "m2").await;
        let tx = db.begin().await.unwrap();
        for expected in [2, 1, 0] {
            let released = removal::release_some(&tx, old.id, 2).await.unwrap();
            assert_eq!(released, expected);
        }
        assert_eq!(removal::release_some(&tx, older.id, 9).await.unwrap(), 2);
        tx.commit().await.unwrap();
        let released = raw_data::find(db, Scope::Operator, kept, false)
            .await
            .unwrap();
        assert_eq!(released.integration_id, None);
        assert!(!raw_data::has_any(db, old.id).await.unwrap());

        let adopt = async |former: &Integration, limit| {
            let tx = db.begin().await.unwrap();
            let adopted = removal::adopt(&tx, former.id, new.id, limit).await.unwrap();
            tx.commit().await.unwrap();
            assert!(adopted.displaced.is_empty());
            adopted.rows
        };
        assert_eq!(adopt(&old, 1).await, 1);
        assert_eq!(adopt(&old, 10).await, 1);
        assert_eq!(adopt(&old, 10).await, 0, "m1 is there already");
        assert_eq!(adopt(&older, 10).await, 1);
        assert_eq!(adopt(&older, 10).await, 0, "m3 is there already");
        let adopted = raw_data::find(db, Scope::Operator, kept, false)
            .await
            .unwrap();
        assert_eq!(adopted.integration_id, Some(new.id));
        let meta_data = adopted.meta_data.unwrap();
        assert_eq!(meta_data["integration_id"], json!(new.id));
        assert_eq!(meta_data["subject"], json!(AWKWARD));
        let ids = strings(&["m1", "m2", "m3", "m4"]);
        assert_eq!(
            raw_data::stored_ids(db, new.id, &ids).await.unwrap().len(),
            4
        );
    })
    .await;
}

#[tokio::test]
async fn what_only_an_import_brought_gives_way_to_what_is_adopted() {
    both(async |test| {
        let db = &test.db;
        let (old, new) = (connect_gmail(db).await, connect_gmail(db).await);
        // External id, key of the message, whether only an import brought it.
        let put = async |of: &Integration, rows: &[(&str, &str, bool)]| {
            let rows = rows.iter().map(|&(id, key, imported)| NewRow {
                message_key: Some(key.to_owned()),
                imported,
                ..new_row(of, id, &["INBOX"])
            });
            let tx = db.begin().await.unwrap();
            raw_data::upsert(&tx, of.entity_id, of.id, rows.collect(), at(0))
                .await
                .unwrap();
            tx.commit().await.unwrap();
        };
        put(
            &old,
            &[
                ("m1", "k1", false),
                ("m2", "k2", false),
                ("m3", "k3", false),
                ("m4", "k4", false),
                ("mid:k5", "k5", true),
                ("mid:k6", "k6", true),
            ],
        )
        .await;
        let erased = [
            id_of(test, &old, "m3").await,
            id_of(test, &old, "mid:k6").await,
        ];
        let mut kept = BTreeMap::new();
        for id in ["m1", "m2", "m3", "mid:k5", "mid:k6"] {
            kept.insert(id, id_of(test, &old, id).await);
        }
        let tx = db.begin().await.unwrap();
        raw_data::erase(&tx, old.id, &erased, at(1)).await.unwrap();
        assert_eq!(removal::release_some(&tx, old.id, 10).await.unwrap(), 6);
        tx.commit().await.unwrap();
        put(
            &new,
            &[
                ("m1", "k1", true),
                ("mid:k2", "k2", true),
                ("m3", "k3", true),
                ("m4", "k4", false),
                ("n5", "k5", true),
                ("n6", "k6", true),
                ("m7", "k7", true),
            ],
        )
        .await;
        // What the service has shown stays, and so does what comes first of an item that was erased.
        for id in ["m4", "n6", "m7"] {
            kept.insert(id, id_of(test, &new, id).await);
        }

        let mut displaced = BTreeSet::new();
        for rows in [2, 2, 1, 0] {
            let tx = db.begin().await.unwrap();
            let adopted = removal::adopt(&tx, old.id, new.id, 2).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(adopted.rows, rows);
            displaced.extend(adopted.displaced.into_iter().map(|(id, _)| id));
        }
        assert_eq!(
            displaced.iter().map(String::as_str).collect::<Vec<_>>(),
            ["m1", "m3", "mid:k2", "n5"]
        );
        let all = Slicing {
            after: None,
            limit: 50,
        };
        let there = raw_data::list(db, Scope::Operator, new.id, true, all)
            .await
            .unwrap();
        let there: BTreeMap<_, _> = there
            .items
            .iter()
            .map(|row| (row.external_id.as_deref().unwrap(), row.id))
            .collect();
        assert_eq!(there, kept);
    })
    .await;
}

#[tokio::test]
async fn records_are_deleted_for_good_by_portions_that_are_told() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        store(db, &row, &["m1", "m2", "m3"]).await;
        store(db, &connect_gmail(db).await, &["m1"]).await;
        let erased = id_of(test, &row, "m1").await;
        let tx = db.begin().await.unwrap();
        raw_data::erase(&tx, row.id, &[erased], at(1))
            .await
            .unwrap();
        // One that was to be kept at first.
        assert_eq!(removal::release_some(&tx, row.id, 1).await.unwrap(), 1);
        let mut gone = removal::delete_some(&tx, row.id, 2).await.unwrap();
        assert_eq!(gone.len(), 2);
        gone.extend(removal::delete_some(&tx, row.id, 2).await.unwrap());
        assert!(
            removal::delete_some(&tx, row.id, 2)
                .await
                .unwrap()
                .is_empty()
        );
        tx.commit().await.unwrap();
        gone.sort_by(|a, b| a.0.cmp(&b.0));
        let told: Vec<(&str, bool)> = gone
            .iter()
            .map(|(id, row)| (id.as_str(), row.deleted))
            .collect();
        assert_eq!(told, [("m1", true), ("m2", false), ("m3", false)]);
        assert_eq!(gone[2].1.content_hash, "hash of m3");
        assert_eq!(test.count("raw_data").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_entity_s_records_are_deleted_by_portions_whatever_brought_them() {
    both(async |test| {
        let db = &test.db;
        let row = connect_gmail(db).await;
        store(db, &row, &["m1", "m2", "m3"]).await;
        store(db, &connect_gmail(db).await, &["m1"]).await;
        let tx = db.begin().await.unwrap();
        assert_eq!(removal::release_some(&tx, row.id, 2).await.unwrap(), 2);
        tx.commit().await.unwrap();
        // One that the platform made.
        let id = match test.kind {
            Kind::Sqlite => "randomblob(16)",
            Kind::Postgres => "gen_random_uuid()",
        };
        test.sql(&format!(
            "INSERT INTO raw_data (id, entity_id, data_type)
             SELECT {id}, entity_id, 'note' FROM raw_data WHERE external_id = 'm3'"
        ))
        .await;
        let tx = db.begin().await.unwrap();
        let mut of_former = Vec::new();
        for expected in [2, 2, 0] {
            let deleted = removal::delete_of_entity(&tx, row.entity_id, 2).await;
            let deleted = deleted.unwrap();
            assert_eq!(deleted.count, expected);
            of_former.extend(deleted.of_former);
        }
        assert!(of_former.iter().all(|(id, _)| *id == row.id));
        let told = of_former.iter().map(|(_, rows)| rows.len());
        assert_eq!(told.sum::<usize>(), 2);
        tx.commit().await.unwrap();
        assert_eq!(test.count("raw_data").await, 1);
    })
    .await;
}
