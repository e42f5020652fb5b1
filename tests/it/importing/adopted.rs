//! Imports into a connection that has not taken over yet what an earlier one of its account left behind.

use super::{
    Method, Path, TestApp, changes, count, export, file, generated, import_file, json, on_both,
    rows,
};

/// Removes the integration and keeps its records; connects the same account again.
async fn connect_again(app: &TestApp, id: &str, grant: &str) -> String {
    let entity = app.integration(id).await["entity_id"].clone();
    let path = format!("/integrations/{id}?data=keep");
    let (status, answer) = app.send("DELETE", &path, None).await;
    assert_eq!(status, 200, "{answer}");
    app.google.set_refresh_token(grant);
    app.connect_for(entity.as_str().unwrap(), json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_before_the_adoption_doubles_nothing_and_brings_nothing_back() {
    on_both(generated, async |app, first| {
        let takeout = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        let plain = app.google.with_mailbox(|mailbox| export::plain(mailbox));
        let takeout = file(app, "takeout.mbox", &takeout);
        let plain = file(app, "plain.mbox", &plain);
        let wanted: Vec<String> = app.ledger().into_keys().collect();
        // One is only in the exports, and two have been erased.
        app.google
            .with_mailbox(|mailbox| mailbox.delete(&wanted[0]));
        import_file(app, first, &plain).await;
        app.sync(first).await;
        app.google.with_mailbox(|mailbox| {
            mailbox.delete(&wanted[1]);
            mailbox.delete(&wanted[2]);
        });
        app.sync(first).await;
        let before = rows(app, first).await;
        assert_eq!(before.len(), wanted.len() - 2);

        let mut id = first.to_owned();
        let orders: [&[&Path]; 3] = [&[&takeout], &[&plain], &[&plain, &takeout]];
        for (round, files) in orders.into_iter().enumerate() {
            id = connect_again(app, &id, &format!("1//grant-{round}")).await;
            for path in files {
                import_file(app, &id, path).await;
            }
            let imported = rows(app, &id).await;
            assert_eq!(imported.len(), wanted.len(), "{files:?}");
            let told_before = changes(app).await["deleted"];
            app.google.clear_requests();
            let run = app.sync(&id).await;
            assert_eq!(run["status"], "success", "{run}");
            assert_eq!(app.calls(Method::MessagesGet), 0, "{files:?}");
            assert_eq!(rows(app, &id).await, before, "{files:?}");
            let changed = ["stored", "updated", "deleted"].map(|name| count(&run, name));
            assert_eq!(changed, [0; 3], "{run}");
            // Of each row that went the engine was told.
            assert_eq!(changes(app).await["deleted"] - told_before, wanted.len());
            let told = app.told(&id).await;
            for (row, _) in imported.values() {
                assert_eq!(told[row], "deleted");
            }
            let left = "SELECT CAST(count(*) AS text) FROM raw_data WHERE integration_id IS NULL";
            let on_postgres = left.replace("raw_data", "dna.raw_data");
            assert_eq!(app.rows(left, &on_postgres).await, ["0"]);
            assert_eq!(app.sync(&id).await["quota_units"], 2);
        }
    })
    .await;
}
