//! The audit log's chains, by many writers at once.

use futures_util::future::join_all;
use nucleus::{
    audit,
    db::audit_log::{self, Act},
    domain::{
        EntityId,
        audit::{Action, Interface, Origin},
    },
};

use super::{super::db::both, at};

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
        let verified = audit::verify(db, Vec::new()).await.unwrap();
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
