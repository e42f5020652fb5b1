//! Requests under a key of the client's: who may carry one out, and what is found afterwards.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use nucleus::db::{
    Db,
    idempotency_key::{self, Answer, Claim, KEPT, Keyed, Standing},
};

use super::{super::db::both, at};

const LEASE: Duration = Duration::from_secs(60);

fn keyed(fingerprint: &str) -> Keyed {
    Keyed {
        caller: "operator".into(),
        method: "POST".into(),
        path: "/entities".into(),
        key: "k".into(),
        fingerprint: fingerprint.into(),
    }
}

fn answer() -> Answer {
    Answer {
        status: 201,
        content_type: "application/json".into(),
        body: vec![0, 1, 254, 255],
    }
}

async fn claim(db: &Db, keyed: &Keyed) -> Option<Claim> {
    idempotency_key::claim(db, keyed, at(0), LEASE)
        .await
        .unwrap()
}

async fn look(db: &Db, keyed: &Keyed) -> Standing {
    idempotency_key::look(db, keyed, at(0)).await.unwrap()
}

#[tokio::test]
async fn of_many_that_claim_a_request_at_once_one_gets_it() {
    both(async |test| {
        let one = keyed("a");
        assert_eq!(look(&test.db, &one).await, Standing::Free);
        let claims = join_all((0..40).map(|_| claim(&test.db, &one))).await;
        let claims: Vec<Claim> = claims.into_iter().flatten().collect();
        assert_eq!(claims.len(), 1);
        assert_eq!(look(&test.db, &one).await, Standing::InFlight);
        assert_eq!(look(&test.db, &keyed("b")).await, Standing::OtherBody);
        assert_eq!(claim(&test.db, &keyed("b")).await, None);
        // Whatever differs is another request.
        for other in [
            Keyed {
                caller: "x".into(),
                ..one.clone()
            },
            Keyed {
                method: "PUT".into(),
                ..one.clone()
            },
            Keyed {
                path: "/x".into(),
                ..one.clone()
            },
            Keyed {
                key: "K".into(),
                ..one.clone()
            },
        ] {
            assert_eq!(look(&test.db, &other).await, Standing::Free);
            assert!(claim(&test.db, &other).await.is_some());
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_found_until_its_time_is_over() {
    both(async |test| {
        let (db, one) = (&test.db, keyed("a"));
        let taken = claim(db, &one).await.unwrap();
        assert!(idempotency_key::finish(db, taken, answer()).await.unwrap());
        assert!(!idempotency_key::finish(db, taken, answer()).await.unwrap());
        assert!(!idempotency_key::renew(db, taken, LEASE).await.unwrap());
        idempotency_key::free(db, taken).await.unwrap();
        idempotency_key::end_leases(db).await.unwrap();
        assert_eq!(look(db, &one).await, Standing::Answered(taken.id, answer()));
        assert_eq!(look(db, &keyed("b")).await, Standing::OtherBody);
        assert_eq!(claim(db, &one).await, None);
        let almost = at(0) + KEPT - TimeDelta::seconds(1);
        assert_eq!(idempotency_key::purge(db, almost, 10).await.unwrap(), 0);
        let later = at(0) + KEPT;
        let found = idempotency_key::look(db, &one, later).await.unwrap();
        assert_eq!(found, Standing::Free);
        // It may be taken anew, by any body, without having been swept.
        let again = idempotency_key::claim(db, &keyed("b"), later, LEASE).await;
        assert_ne!(again.unwrap().unwrap().id, taken.id);
        assert_eq!(idempotency_key::purge(db, later, 10).await.unwrap(), 0);
        let end = later + KEPT;
        assert_eq!(idempotency_key::purge(db, end, 10).await.unwrap(), 1);
        assert_eq!(test.count("idempotency_keys").await, 0);
    })
    .await;
}

#[tokio::test]
async fn who_takes_over_from_the_dead_keeps_the_id_and_the_dead_can_write_nothing() {
    both(async |test| {
        let (db, one) = (&test.db, keyed("a"));
        let first = claim(db, &one).await.unwrap();
        test.sql("UPDATE idempotency_keys SET lease_until = 1")
            .await;
        // Still its own body's: it may have had its effect.
        assert_eq!(look(db, &keyed("b")).await, Standing::OtherBody);
        assert_eq!(claim(db, &keyed("b")).await, None);
        assert_eq!(look(db, &one).await, Standing::Free);
        let claims = join_all((0..20).map(|_| claim(db, &one))).await;
        let claims: Vec<Claim> = claims.into_iter().flatten().collect();
        let [second] = claims[..] else {
            panic!("{claims:?}")
        };
        assert_eq!((second.id, second.fence), (first.id, first.fence + 1));
        assert!(!idempotency_key::renew(db, first, LEASE).await.unwrap());
        assert!(!idempotency_key::finish(db, first, answer()).await.unwrap());
        idempotency_key::free(db, first).await.unwrap();
        assert_eq!(look(db, &one).await, Standing::InFlight);
        // As one that knows itself to be alone finds it.
        idempotency_key::end_leases(db).await.unwrap();
        assert_eq!(look(db, &one).await, Standing::Free);
        assert!(idempotency_key::renew(db, second, LEASE).await.unwrap());
        assert_eq!(look(db, &one).await, Standing::InFlight);
        assert!(idempotency_key::finish(db, second, answer()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_freed_key_is_any_bodys_and_the_id_its_own_bodys() {
    both(async |test| {
        let db = &test.db;
        let first = claim(db, &keyed("a")).await.unwrap();
        idempotency_key::free(db, first).await.unwrap();
        for fingerprint in ["a", "b"] {
            assert_eq!(look(db, &keyed(fingerprint)).await, Standing::Free);
        }
        // What failed may have had its effect; its own repeat finds it.
        let again = claim(db, &keyed("a")).await.unwrap();
        assert_eq!(again.id, first.id);
        idempotency_key::free(db, again).await.unwrap();
        let other = claim(db, &keyed("b")).await.unwrap();
        assert_ne!(other.id, first.id);
        assert_eq!(look(db, &keyed("a")).await, Standing::OtherBody);
        assert_eq!(test.count("idempotency_keys").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_however_late_the_attempt_that_had_it() {
    both(async |test| {
        let (db, one) = (&test.db, keyed("a"));
        let first = claim(db, &one).await.unwrap();
        idempotency_key::free(db, first).await.unwrap();
        let late = at(0) + KEPT - TimeDelta::seconds(1);
        let again = idempotency_key::claim(db, &one, late, LEASE).await;
        let again = again.unwrap().unwrap();
        assert_eq!(again.id, first.id);
        assert!(idempotency_key::finish(db, again, answer()).await.unwrap());
        let almost = late + KEPT - TimeDelta::seconds(1);
        assert_eq!(idempotency_key::purge(db, almost, 10).await.unwrap(), 0);
        let found = idempotency_key::look(db, &one, almost).await.unwrap();
        assert_eq!(found, Standing::Answered(first.id, answer()));
        let end = late + KEPT;
        assert_eq!(idempotency_key::purge(db, end, 10).await.unwrap(), 1);
    })
    .await;
}
