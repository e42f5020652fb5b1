//! A request for every operation that takes a body, with a body that is good; and a watch that tells
//! whether anything happened.

use std::collections::BTreeSet;

use nucleus::demo::{Consent, Mailbox};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{OWNER, by_token, versions};
use crate::{
    contract::operations,
    harness::{Setting, TestApp},
};

/// A request that is carried out when it is sent by the operator.
pub(super) struct GoodRequest {
    pub method: &'static str,
    /// As the document has it.
    pub route: &'static str,
    pub path: String,
    pub body: Value,
    /// What it is answered with.
    pub status: u16,
}

impl GoodRequest {
    fn new(route: &'static str, id: &str, body: Value, status: u16) -> Self {
        let (method, route) = route.split_once(' ').unwrap();
        Self {
            method,
            route,
            path: route.replace("{id}", id).replace("{service}", id),
            body,
            status,
        }
    }
}

/// The program, and one request for each operation that takes a body.
pub(super) async fn start() -> (TestApp, Vec<GoodRequest>) {
    let app = Setting::new(Mailbox::new(OWNER, 1))
        .embedded()
        .start()
        .await;
    let entity = app.entity().await;
    let integration = app.connect_for(&entity, json!({})).await;
    let run = app.request_sync(&integration).await;
    let other = app.connect().await;
    let body = json!({"entity_id": app.entity().await});
    let begun = app.post("/integrations/gmail/oauth/start", body).await;
    let url = begun["authorization_url"].as_str().unwrap();
    let answer = app.google.authorize(url, &Consent::default()).await;
    let answer = answer.unwrap();
    let part = |name: &str| {
        let found = answer.query_pairs().find(|(key, _)| key == name);
        found.unwrap().1.into_owned()
    };
    let callback = json!({"state": part("state"), "code": part("code")});
    let start = json!({"entity_id": entity});
    let github = by_token(&entity, "github");
    let change = json!({"display_name": "x"});
    let all = vec![
        GoodRequest::new("POST /entities", "", json!({"name": "Ada"}), 201),
        GoodRequest::new("POST /integrations/", "", github, 201),
        GoodRequest::new("PATCH /integrations/{id}", &integration, change, 200),
        GoodRequest::new("POST /integrations/{id}/test", &integration, json!({}), 200),
        GoodRequest::new("POST /integrations/{id}/sync", &other, json!({}), 202),
        GoodRequest::new("POST /runs/{id}/cancel", &run, json!({}), 202),
        GoodRequest::new(
            "POST /integrations/{service}/oauth/start",
            "gmail",
            start,
            200,
        ),
        GoodRequest::new(
            "POST /integrations/{service}/oauth/callback",
            "gmail",
            callback,
            201,
        ),
    ];
    let known: BTreeSet<_> = all
        .iter()
        .map(|good| (good.method.to_owned(), good.route.to_owned()))
        .collect();
    let documented: BTreeSet<_> = operations()
        .into_iter()
        .filter(|operation| operation.described.get("requestBody").is_some())
        .map(|operation| (operation.method, operation.path))
        .collect();
    assert_eq!(known, documented, "a route has no good request here");
    (app, all)
}

/// The database, beside the program.
pub(super) async fn database(app: &TestApp) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(app.folder.path().join("nucleus.db"))
        .connect()
        .await
        .unwrap()
}

/// Sees whatever the program writes, and whom it calls.
pub(super) struct Watch {
    database: SqliteConnection,
    before: (i64, usize, BTreeSet<String>),
}

impl Watch {
    pub async fn begin(app: &TestApp) -> Self {
        let mut database = database(app).await;
        let before = look(app, &mut database).await;
        Self { database, before }
    }

    /// Whether anything was written, or any service called, since it began.
    pub async fn has_seen(&mut self, app: &TestApp) -> bool {
        look(app, &mut self.database).await != self.before
    }
}

async fn look(app: &TestApp, database: &mut SqliteConnection) -> (i64, usize, BTreeSet<String>) {
    // Another number after each commit of another connection:
    // https://www.sqlite.org/pragma.html#pragma_data_version
    let commits = sqlx::query_scalar("PRAGMA data_version").fetch_one(database);
    let calls = app.google.requests().len();
    (commits.await.unwrap(), calls, versions(app).await)
}
