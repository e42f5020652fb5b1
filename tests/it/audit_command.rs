//! `nucleus audit verify`, on the database of a program that runs, with the heads that it has logged.

use nucleus::demo::generate;
use serde_json::Value;

use crate::child::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_told_by_the_command_and_by_the_logged_heads() {
    let mut world = World::embedded(generate::mailbox(3, 1)).await;
    world.set("NUCLEUS_TELEMETRY__FORMAT", "json");
    let server = world.listen("up").await;
    let entity = server.api.entity().await;
    // A key of the operator's, so that there is a second chain.
    world.run(&["key", "create", "--operator"]).await.ok();
    // Passes with housekeeping are a minute apart; one that is asked for is made at once.
    let tick = world.run(&["tick"]).await;
    let log = format!("{}{}", server.stop().await.stderr, tick.stderr);
    assert_eq!(tick.code, Some(0), "{tick:?}");
    let file = world.folder.path().join("nucleus.log");
    std::fs::write(&file, &log).unwrap();
    let file = file.to_str().unwrap();

    let clean = world
        .run(&["audit", "verify", "--json", "--log", file])
        .await
        .ok();
    let clean: Value = serde_json::from_str(&clean).unwrap();
    assert_eq!(clean["findings"], serde_json::json!([]));
    assert!(clean["rows"].as_u64().unwrap() >= 2, "{clean}");
    assert!(clean["logged_heads"].as_u64().unwrap() >= 1, "{clean}");

    let mut database = world.database().await;
    let removed = format!(
        "DELETE FROM audit_log WHERE chain = '{entity}'; DELETE FROM audit_heads WHERE chain = '{entity}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(removed))
        .execute(&mut database)
        .await
        .unwrap();
    world.run(&["audit", "verify"]).await.ok();
    let told = world.run(&["audit", "verify", "--log", file]).await;
    told.assert_fails(1, &["not as it was written"]);
    assert!(
        told.stdout.contains("the row of a logged head is missing"),
        "{told:?}"
    );

    sqlx::query("UPDATE audit_log SET target = 'another' WHERE position = 1")
        .execute(&mut database)
        .await
        .unwrap();
    let told = world.run(&["audit", "verify"]).await;
    told.assert_fails(1, &["not as it was written"]);
    assert!(
        told.stdout.contains("operator  row 1  it was changed"),
        "{told:?}"
    );

    let no_log = world.folder.path().join("empty.log");
    std::fs::write(&no_log, "{}\n").unwrap();
    let refused = world
        .run(&["audit", "verify", "--log", no_log.to_str().unwrap()])
        .await;
    refused.assert_fails(1, &["holds no head of an audit chain"]);
}
