//! Removals of what has more records than one transaction takes, and whose process died in the middle: what is
//! seen of them then, and what the next process makes of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    child::{Api, PATIENCE, Server, World, happens},
    disconnecting::number,
    doubles::small_mailbox,
    kills::assert_dies,
};

/// Records of a connection: those of the mailbox, and as many as make three transactions.
const RECORDS: i64 = 3 + 1_300;
/// What two transactions are done with.
const DONE: i64 = 1_000;

/// Gives each connection records that only an import has brought, so that no sync misses them.
async fn fill(world: &World) {
    let statement = format!(
        "WITH RECURSIVE counted(number) AS (
            SELECT 1 UNION ALL SELECT number + 1 FROM counted WHERE number < {RECORDS} - 3)
         INSERT INTO raw_data (id, entity_id, integration_id, external_id, data_type, data_content,
            meta_data, content_hash, imported)
         SELECT randomblob(16), entity_id, id, 'm' || number, 'email', 'text',
            '{{\"labels\": []}}', 'hash', true
         FROM entity_integrations, counted"
    );
    let mut database = world.database().await;
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut database)
        .await
        .unwrap();
}

/// What a process that died left behind.
struct Left {
    world: World,
    entity: String,
    path: String,
}

impl Left {
    /// A program that dies after one more transaction than it may do, and what it is to remove.
    async fn start(may_do: usize) -> (Self, Server) {
        let world = World::embedded(small_mailbox(3)).await;
        let mut command = world.command(&["up"]);
        let action = format!("disconnect.records={may_do}*off->panic");
        command.env("FAILPOINTS", action);
        let server = Server::start(command).await;
        let id = server.api.connect(&world).await;
        let path = format!("/integrations/{id}");
        let found = server.api.get(&path).await;
        let entity = found["entity_id"].as_str().unwrap().to_owned();
        let run = server.api.sync(&id).await;
        assert_eq!(server.api.ended(&run).await["status"], "success");
        fill(&world).await;
        let left = Self {
            world,
            entity,
            path,
        };
        (left, server)
    }

    /// A removal of the connection that came as far as [`DONE`].
    async fn removing(query: &str) -> Self {
        let (left, mut dying) = Self::start(1).await;
        let removed = format!("{}{query}", left.path);
        assert_eq!(dying.api.try_send("DELETE", &removed, None).await, None);
        assert_dies(&mut dying.child, "disconnect.records").await;
        left
    }

    /// Waits until `up` has taken up what is to be removed.
    async fn taken_up(&self) -> Server {
        let server = self.world.listen("up").await;
        let is_done = happens(PATIENCE, async || {
            let open = "SELECT (SELECT count(*) FROM disconnections WHERE finished_at IS NULL)
                            + (SELECT count(*) FROM entity_removals)";
            number(&self.world, open).await == 0
        });
        assert!(is_done.await, "taken up by nobody");
        let answer = server.api.try_send("GET", &self.path, None).await;
        assert_eq!(answer.unwrap().0, 404);
        server
    }

    /// Fails unless events tell of each record's deletion once, and the row counts them.
    async fn assert_deleted(&self, api: &Api) {
        let mut told = Vec::new();
        for event in api.all("/events").await {
            let records = event["data"]["records"].as_array().unwrap().clone();
            let deleted = records
                .into_iter()
                .filter(|record| record["change"] == "deleted");
            told.extend(deleted.map(|record| record["id"].as_str().unwrap().to_owned()));
        }
        assert_eq!(told.len() as i64, RECORDS);
        let distinct: BTreeSet<&String> = told.iter().collect();
        assert_eq!(distinct.len() as i64, RECORDS);
        let world = &self.world;
        assert_eq!(number(world, "SELECT count(*) FROM raw_data").await, 0);
        assert_eq!(
            number(world, "SELECT count(*) FROM former_integrations").await,
            0
        );
        assert_eq!(self.counted().await, RECORDS);
    }

    /// How many records the removal was told to have kept or deleted.
    async fn counted(&self) -> i64 {
        let counted = "SELECT record_count FROM disconnections WHERE finished_at IS NOT NULL";
        number(&self.world, counted).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_released_to_its_end_before_anybody_adopts_it() {
    let left = Left::removing("").await;
    let released = "SELECT count(*) FROM raw_data
                    WHERE integration_id IS NULL AND former_integration_id IS NOT NULL";
    assert_eq!(number(&left.world, released).await, DONE);

    // Without a scheduler nobody takes it up: the integration is there, and nothing is done with it.
    let serving = left.world.listen("serve").await;
    let api = &serving.api;
    let found = api.get(&left.path).await;
    assert_eq!(found["status"], "inactive", "{found}");
    assert_eq!(
        found["sync_error_message"],
        "the integration is being removed"
    );
    let records = api.all(&format!("{}/records", left.path)).await;
    assert_eq!(records.len() as i64, RECORDS - DONE);
    let sync = format!("{}/sync", left.path);
    let (status, _) = api.try_send("POST", &sync, None).await.unwrap();
    assert_eq!(status, 409);
    left.world.google.set_refresh_token("1//again");
    let body = Api::connection(&left.world, &left.entity);
    let again = api.try_send("POST", "/integrations/", Some(body.clone()));
    let (status, problem) = again.await.unwrap();
    assert_eq!(status, 409, "{problem}");
    serving.stop().await;

    let server = left.taken_up().await;
    assert_eq!(number(&left.world, released).await, RECORDS);
    assert_eq!(left.counted().await, RECORDS);
    let again = server.api.post("/integrations/", body).await;
    let again = again["id"].as_str().unwrap();
    let run = server.api.sync(again).await;
    let run = server.api.ended(&run).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(run["counts"]["fetched"], 0, "{run}");
    let records = format!("/integrations/{again}/records");
    assert_eq!(server.api.all(&records).await.len() as i64, RECORDS);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_told_once_whoever_deletes_it() {
    let left = Left::removing("?data=delete").await;
    let count = "SELECT count(*) FROM raw_data";
    assert_eq!(number(&left.world, count).await, RECORDS - DONE);
    let server = left.taken_up().await;
    left.assert_deleted(&server.api).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_be_kept_is_deleted_all_the_same_if_its_owner_says_so_in_time() {
    let left = Left::removing("?data=keep").await;
    let serving = left.world.listen("serve").await;
    let path = format!("{}?data=delete", left.path);
    let (status, removed) = serving.api.try_send("DELETE", &path, None).await.unwrap();
    assert_eq!(status, 200, "{removed}");
    assert_eq!(removed["records"], json!(RECORDS));
    left.assert_deleted(&serving.api).await;
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_goes_with_what_it_had_kept() {
    // Three transactions keep the records; of those that delete them it dies after the second.
    let (left, mut dying) = Left::start(3 + 1).await;
    let (status, kept) = dying
        .api
        .try_send("DELETE", &left.path, None)
        .await
        .unwrap();
    assert_eq!((status, &kept["records"]), (200, &json!(RECORDS)));
    let entity = format!("/entities/{}", left.entity);
    assert_eq!(dying.api.try_send("DELETE", &entity, None).await, None);
    assert_dies(&mut dying.child, "disconnect.records").await;
    let count = "SELECT count(*) FROM raw_data";
    assert_eq!(number(&left.world, count).await, RECORDS - DONE);
    let server = left.taken_up().await;
    left.assert_deleted(&server.api).await;
    assert_eq!(server.api.all("/entities").await, Vec::<Value>::new());
    server.stop().await;
}
