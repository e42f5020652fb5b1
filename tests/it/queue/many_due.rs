//! Many syncs due at once: each is asked for once by however many schedulers, the longest overdue first,
//! in memory that does not grow with them.

use crate::{
    broker::Cloud,
    child::{Child, PATIENCE, World, happens},
    doubles::small_mailbox,
};

/// Integrations that are due, where `NUCLEUS_DUE` does not say how many.
const DUE: i64 = 2_000;
/// What a scheduler may take, however many are due.
const MEMORY_KIB: u64 = 160 * 1024;

#[expect(
    clippy::disallowed_methods,
    reason = "how much is tested is up to who runs the tests"
)]
fn due() -> i64 {
    let given = std::env::var("NUCLEUS_DUE").ok();
    given.map_or(DUE, |text| text.parse().unwrap())
}

/// Gives so many entities an integration each, copied from the one there is, every one a second more
/// overdue than the next.
async fn multiply(cloud: &Cloud, count: i64) {
    let entities = format!(
        "WITH made AS (INSERT INTO entity (id, name) SELECT gen_random_uuid(), 'Somebody'
            FROM generate_series(2, {count}) RETURNING 1) SELECT count(*) FROM made"
    );
    assert_eq!(cloud.number(&entities).await, count - 1);
    let columns = "service_name, credential_type, status, account_verified, sync_failures,
        refresh_generation, scopes, config, sync_settings, meta_data, created_at, updated_at";
    let integrations = format!(
        "WITH made AS (INSERT INTO entity_integrations (id, entity_id, {columns})
            SELECT gen_random_uuid(), e.id, {}
            FROM entity e, entity_integrations i WHERE e.id <> i.entity_id RETURNING 1)
         SELECT count(*) FROM made",
        columns
            .split(", ")
            .map(|column| format!("i.{}", column.trim()))
            .collect::<Vec<_>>()
            .join(", ")
    );
    assert_eq!(cloud.number(&integrations).await, count - 1);
    let overdue = "WITH placed AS (SELECT id, row_number() OVER (ORDER BY id) AS place
                FROM entity_integrations),
            moved AS (UPDATE entity_integrations SET next_sync_at = now() - place * interval '1 s'
                FROM placed WHERE placed.id = entity_integrations.id RETURNING 1)
         SELECT count(*) FROM moved";
    assert_eq!(cloud.number(overdue).await, count);
}

/// Ends a `tick`; gives how many syncs it asked for.
async fn requested(mut child: Child) -> i64 {
    let mut peak = 0;
    let ended = happens(10 * PATIENCE, async || {
        peak = child.try_peak_memory_kib().unwrap_or(peak).max(peak);
        child.has_ended()
    });
    assert!(ended.await, "not done yet");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    let finished = child.exit(PATIENCE).await;
    let said = child.finished(finished).ok();
    said.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_that_are_due_is_asked_for_once_by_any_number_of_schedulers() {
    let count = due();
    let cloud = Cloud::around(World::embedded(small_mailbox(1)).await).await;
    let server = cloud.world.listen("serve").await;
    server.api.connect(&cloud.world).await;
    server.stop().await;
    multiply(&cloud, count).await;
    let schedulers: Vec<Child> = (0..3)
        .map(|_| Child::spawn(cloud.world.command(&["tick"])))
        .collect();
    let mut sum = 0;
    for scheduler in schedulers {
        sum += requested(scheduler).await;
    }
    assert_eq!(sum, count);
    for (what, wanted) in [
        ("sync_runs", count),
        ("outbox WHERE state = 'pending'", count),
        (
            "(SELECT DISTINCT integration_id FROM sync_runs) AS a",
            count,
        ),
        ("entity_integrations WHERE next_sync_at <= now()", 0),
    ] {
        let found = cloud.number(&format!("SELECT count(*) FROM {what}")).await;
        assert_eq!(found, wanted, "{what}");
    }
    // Nobody's turn comes much later than its place: schedulers take pages of a hundred.
    let latest = cloud
        .number(
            "SELECT max(abs(asked - overdue)) FROM (
                SELECT row_number() OVER (ORDER BY o.available_at, o.id) AS asked,
                    row_number() OVER (ORDER BY i.id DESC) AS overdue
                FROM outbox o JOIN entity_integrations i ON i.id = o.integration_id) AS a",
        )
        .await;
    assert!(latest <= 500, "{latest} places");
}
