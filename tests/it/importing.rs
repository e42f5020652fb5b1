//! Imports from files beside the API: nothing twice, nothing lost, nothing changed back, and no unit
//! of quota for what a file has brought. Each on SQLite and on PostgreSQL.

mod adopted;
mod commands;
pub mod export;
mod incomplete;
mod killed;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

pub use killed::abort_while_importing;
use nucleus::{
    demo::{Arrival, Mailbox, Method, Raw, generate},
    domain::sync::{Counts, Run},
    import::{Import, ImportError, Input, Place, Watcher, import},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    db::PostgresDatabase,
    harness::{Setting, TestApp, assert_adds_up},
};

/// Messages of the mailboxes here, and what makes them.
const MESSAGES: usize = 131;
const SEED: u64 = 5;
/// Of the first sync after an import: the profile 1, a page of the list 5, the labels 1, the history 2.
const UNITS_AFTER_IMPORT: u64 = 9;

/// Nobody watches.
struct Blind;

impl Watcher for Blind {
    fn waits_for(&self, _: &Run) {}
    fn begins(&self, _: &str, _: Option<u64>) {}
    fn goes_on_from(&self, _: u64) {}
    fn moved(&self, _: u64, _: &Counts) {}
}

/// The program with an integration, on both databases one after the other.
async fn on_both(mailbox: impl Fn() -> Mailbox, body: impl AsyncFn(&TestApp, &str)) {
    let app = Setting::new(mailbox()).start().await;
    body(&app, &app.connect().await).await;
    let database = PostgresDatabase::create().await;
    let app = Setting::new(mailbox())
        .variable("NUCLEUS_DATABASE__URL", &database.url)
        .start()
        .await;
    body(&app, &app.connect().await).await;
}

fn generated() -> Mailbox {
    ending_in_lines(generate::mailbox(MESSAGES, SEED))
}

/// The same mailbox with messages that end with a line end: an mbox cannot show that one does not.
fn ending_in_lines(from: Mailbox) -> Mailbox {
    let mut mailbox = Mailbox::new(from.email_address(), SEED);
    for (id, name) in from.labels().filter(|(id, _)| id.starts_with("Label_")) {
        assert_eq!(mailbox.create_label(name), id);
    }
    for (id, message) in export::messages(&from) {
        let mut raw = message.raw.bytes().to_vec();
        if !raw.ends_with(b"\n") {
            raw.extend_from_slice(b"\r\n");
        }
        mailbox.place(Arrival {
            id: Some(id),
            thread: Some(message.thread),
            internal_date_ms: Some(message.internal_date_ms),
            labels: message
                .labels
                .iter()
                .map(|label| label.to_string())
                .collect(),
            raw: Raw::Bytes(raw.into()),
        });
    }
    mailbox
}

/// Writes a file into the test's folder.
fn file(app: &TestApp, name: &str, content: &[u8]) -> PathBuf {
    let path = app.folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

async fn try_import(app: &TestApp, id: &str, input: Input) -> Result<Value, ImportError> {
    let importing = Import {
        engine: &app.app.engine,
        shutdown: CancellationToken::new(),
        watcher: &Blind,
    };
    let run = import(&importing, id.parse().unwrap(), input).await?;
    let run = app.get(&format!("/runs/{}", run.run_id)).await;
    assert_adds_up(&run);
    assert_eq!(
        (&run["kind"], &run["quota_units"]),
        (&json!("import"), &json!(0))
    );
    Ok(run)
}

async fn import_file(app: &TestApp, id: &str, path: &Path) -> Value {
    let input = Input::Mbox(vec![Place::File(path.to_owned())]);
    let run = try_import(app, id, input).await.unwrap();
    assert_eq!(run["status"], "success", "{run}");
    run
}

/// Exports what the stand-in holds and imports it.
async fn import_takeout(app: &TestApp, id: &str) -> Value {
    let export = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
    import_file(app, id, &file(app, "takeout.mbox", &export)).await
}

async fn import_plain(app: &TestApp, id: &str) -> Value {
    let export = app.google.with_mailbox(|mailbox| export::plain(mailbox));
    import_file(app, id, &file(app, "plain.mbox", &export)).await
}

/// External id → (row, labels).
async fn rows(app: &TestApp, id: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let records = app.records(id).await;
    let count = records.len();
    let rows: BTreeMap<_, _> = records
        .into_iter()
        .map(|record| {
            let labels = serde_json::from_value(record["meta_data"]["labels"].clone()).unwrap();
            let row = record["id"].as_str().unwrap().to_owned();
            let external_id = record["external_id"].as_str().unwrap().to_owned();
            (external_id, (row, labels))
        })
        .collect();
    assert_eq!(rows.len(), count, "an id twice");
    rows
}

/// How often events told of each change.
async fn changes(app: &TestApp) -> HashMap<String, usize> {
    let mut changes = HashMap::new();
    for event in app.all("/events").await {
        for record in event["data"]["records"].as_array().unwrap() {
            let change = record["change"].as_str().unwrap().to_owned();
            *changes.entry(change).or_default() += 1;
        }
    }
    changes
}

fn count(run: &Value, name: &str) -> usize {
    let count = run["counts"][name].as_u64().unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeout_import_spares_the_next_sync_every_message() {
    on_both(generated, async |app, id| {
        let before = app.integration(id).await;
        let run = import_takeout(app, id).await;
        let wanted = app.ledger().len();
        assert_eq!(count(&run, "stored"), wanted);
        assert_eq!(run["counts"]["skipped"]["spam_trash"], MESSAGES - wanted);
        assert_eq!(run["counts"]["fetched"], MESSAGES);
        assert_eq!(app.google.units(), 0, "an import calls nobody");
        assert_eq!(app.integration(id).await, before);
        assert_eq!(
            changes(app).await,
            HashMap::from([("created".to_owned(), wanted)])
        );
        for record in app.records(id).await {
            let meta_data = &record["meta_data"];
            assert!(meta_data["thread_id"].is_string() && meta_data["date"].is_string());
            let labels = meta_data["labels"].as_array().unwrap();
            let known = |label: &Value| !label.as_str().unwrap().starts_with("Label_");
            assert!(labels.iter().all(known), "an export has no ids: {labels:?}");
        }

        let before = rows(app, id).await;
        let run = app.sync(id).await;
        assert_eq!(
            (&run["status"], &run["mode"]),
            (&json!("success"), &json!("full"))
        );
        assert_eq!(app.calls(Method::MessagesGet), 0);
        assert_eq!(app.calls(Method::LabelsList), 1);
        assert_eq!(run["quota_units"], UNITS_AFTER_IMPORT);
        assert_eq!(app.google.units(), UNITS_AFTER_IMPORT);
        app.assert_matches_ledger(id).await;
        // Told again only of what now bears a label of the person's own.
        let own = |labels: &Vec<String>| labels.iter().any(|label| label.starts_with("Label_"));
        let labelled = app
            .ledger()
            .values()
            .filter(|(_, labels)| own(labels))
            .count();
        assert!(labelled > 3);
        assert_eq!(
            (count(&run, "updated"), count(&run, "stored")),
            (labelled, 0)
        );
        assert_eq!(changes(app).await["updated"], labelled);
        let rows_of = |rows: &BTreeMap<String, (String, Vec<String>)>| {
            let ids = rows.iter().map(|(id, (row, _))| (id.clone(), row.clone()));
            ids.collect::<Vec<_>>()
        };
        assert_eq!(rows_of(&before), rows_of(&rows(app, id).await));

        assert_eq!(app.sync(id).await["quota_units"], 2, "and then as ever");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apis_copy_takes_over_the_row_of_a_plain_import() {
    on_both(generated, async |app, id| {
        let wanted = app.ledger().len();
        let run = import_plain(app, id).await;
        assert_eq!(count(&run, "stored"), wanted);
        let before = rows(app, id).await;
        assert!(before.keys().all(|id| id.starts_with("mid:")));

        let run = app.sync(id).await;
        assert_eq!(
            (count(&run, "updated"), count(&run, "stored")),
            (wanted, 0),
            "{run}"
        );
        app.assert_matches_ledger(id).await;
        let after = rows(app, id).await;
        let mut ids: [Vec<&String>; 2] = [
            before.values().map(|(row, _)| row).collect(),
            after.values().map(|(row, _)| row).collect(),
        ];
        ids.iter_mut().for_each(|ids| ids.sort_unstable());
        assert_eq!(ids[0], ids[1], "the same rows");

        // And by now the file has nothing to add.
        let run = import_plain(app, id).await;
        assert_eq!(count(&run, "unchanged"), wanted, "{run}");
        assert_eq!(after, rows(app, id).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apis_copy_takes_over_what_an_earlier_connection_imported() {
    on_both(generated, async |app, id| {
        let wanted = app.ledger().len();
        let test = async |id: &str| {
            let tested = app
                .post(&format!("/integrations/{id}/test"), json!({}))
                .await;
            assert_eq!(tested["is_valid"], true, "{tested}");
        };
        // Whose the account is, is known before the first sync.
        test(id).await;
        import_plain(app, id).await;
        let entity = app.integration(id).await["entity_id"].clone();
        let (status, _) = app
            .send("DELETE", &format!("/integrations/{id}"), None)
            .await;
        assert!([200, 204].contains(&status), "{status}");
        app.google.set_refresh_token("1//again");
        let id = app.connect_for(entity.as_str().unwrap(), json!({})).await;
        test(&id).await;
        let run = app.sync(&id).await;
        assert_eq!(
            (count(&run, "updated"), count(&run, "stored")),
            (wanted, 0),
            "{run}"
        );
        app.assert_matches_ledger(&id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeouts_copy_takes_over_the_row_of_a_plain_import() {
    on_both(generated, async |app, id| {
        let wanted = app.ledger().len();
        import_plain(app, id).await;
        let run = import_takeout(app, id).await;
        assert_eq!(
            (count(&run, "updated"), count(&run, "stored")),
            (wanted, 0),
            "{run}"
        );
        assert_eq!(app.sync(id).await["quota_units"], UNITS_AFTER_IMPORT);
        app.assert_matches_ledger(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_adds_what_is_missing_and_changes_nothing_else() {
    on_both(generated, async |app, id| {
        let takeout = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        let plain = app.google.with_mailbox(|mailbox| export::plain(mailbox));
        app.sync(id).await;
        let ids: Vec<String> = app.ledger().into_keys().collect();
        app.google.with_mailbox(|mailbox| {
            mailbox.relabel(&ids[0], &["STARRED", "IMPORTANT"], &["INBOX"]);
            mailbox.delete(&ids[1]);
            mailbox.delete(&ids[2]);
        });
        app.sync(id).await;
        let before = (rows(app, id).await, changes(app).await);
        for (name, content) in [("takeout.mbox", takeout), ("plain.mbox", plain)] {
            let run = import_file(app, id, &file(app, name, &content)).await;
            assert_eq!(count(&run, "unchanged"), ids.len() - 2, "{name}: {run}");
            assert_eq!(run["counts"]["skipped"]["deleted"], 2, "{name}: {run}");
            assert_eq!(run["events"], 0, "{name}");
            assert_eq!((rows(app, id).await, changes(app).await), before, "{name}");
        }
        app.assert_matches_ledger(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twice_is_one() {
    on_both(generated, async |app, id| {
        let wanted = app.ledger().len();
        for export in [export::takeout as fn(&Mailbox) -> Vec<u8>, export::plain] {
            let content = app.google.with_mailbox(|mailbox| export(mailbox));
            let twice = file(
                app,
                "twice.mbox",
                &[content.clone(), content.clone()].concat(),
            );
            let once = file(app, "once.mbox", &content);
            let other = app.connect().await;
            let input = [&twice, &once].map(|path| Place::File(path.clone()));
            let run = try_import(app, &other, Input::Mbox(input.to_vec()))
                .await
                .unwrap();
            assert_eq!(count(&run, "stored"), wanted, "{run}");
            assert_eq!(count(&run, "fetched") % 3, 0);
            assert_eq!(count(&run, "fetched") / 3, count(&run, "listed"));
            assert_eq!(rows(app, &other).await.len(), wanted);
        }
        assert!(
            rows(app, id).await.is_empty(),
            "another integration has its own"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_import_brought_is_not_erased_because_no_listing_shows_it() {
    on_both(generated, async |app, id| {
        let takeout = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        let stranger = b"From a@example.com Thu Jan  1 00:00:05 1998\nMessage-ID: <elsewhere@example.com>\nSubject: From elsewhere\n\nText\n";
        let gone: Vec<String> = app.ledger().into_keys().take(3).collect();
        app.google.with_mailbox(|mailbox| {
            for id in &gone {
                mailbox.delete(id);
            }
        });
        import_file(app, id, &file(app, "takeout.mbox", &takeout)).await;
        import_file(app, id, &file(app, "stranger.mbox", stranger)).await;
        let all = rows(app, id).await.len();
        assert_eq!(all, app.ledger().len() + gone.len() + 1);
        assert_eq!(app.sync(id).await["quota_units"], UNITS_AFTER_IMPORT);
        app.google.with_mailbox(Mailbox::expire_history);
        let run = app.sync(id).await;
        assert_eq!((&run["status"], &run["mode"]), (&json!("success"), &json!("resync")));
        assert_eq!(count(&run, "deleted"), 0, "{run}");
        assert_eq!(rows(app, id).await.len(), all);

        // What a listing has shown is erased once it shows it no more.
        let shown = app.ledger().into_keys().next().unwrap();
        app.google.with_mailbox(|mailbox| {
            mailbox.delete(&shown);
            mailbox.expire_history();
        });
        assert_eq!(count(&app.sync(id).await, "deleted"), 1);
        assert!(!rows(app, id).await.contains_key(&shown));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_labels_are_given_their_ids_and_those_that_are_gone_go() {
    let mailbox = || {
        let mut mailbox = Mailbox::new("me@example.com", 3);
        let travel = mailbox.create_label("Travel, 2023");
        for serial in 0..250 {
            let mut labels = vec!["INBOX".to_owned()];
            labels.extend((serial % 2 == 0).then(|| travel.clone()));
            mailbox.place(Arrival {
                id: None,
                thread: None,
                internal_date_ms: None,
                labels,
                raw: Raw::Generated {
                    index: serial,
                    size: 600,
                },
            });
        }
        mailbox
    };
    on_both(mailbox, async |app, id| {
        let content = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        let text = String::from_utf8(content).unwrap();
        // In another case than now, and with one that was removed since.
        let text = text.replace("\"Travel, 2023\"", "\"travel, 2023\",Removed since");
        let text = text.replacen(
            "X-Gmail-Labels: Inbox,Opened",
            "X-Gmail-Labels: Inbox,Removed since",
            1,
        );
        import_file(app, id, &file(app, "takeout.mbox", text.as_bytes())).await;
        let run = app.sync(id).await;
        assert_eq!(
            (count(&run, "updated"), count(&run, "unchanged")),
            (125, 125),
            "{run}"
        );
        assert_eq!(app.calls(Method::LabelsList), 1);
        app.assert_matches_ledger(id).await;
        let run = app.sync(id).await;
        assert_eq!(
            (run["quota_units"].clone(), run["events"].clone()),
            (json!(2), json!(0))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_older_version_are_known_by_what_is_stored_of_them() {
    on_both(
        || ending_in_lines(generate::mailbox(450, SEED)),
        async |app, id| {
            app.sync(id).await;
            let wanted = app.ledger().len();
            let older = "UPDATE raw_data SET message_key = NULL";
            match app.app.engine.db.is_postgres() {
                true => {
                    let url = app.database_url();
                    let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(&url)
                        .await
                        .unwrap();
                    let older = format!("SET search_path TO dna; {older}");
                    sqlx::raw_sql(sqlx::AssertSqlSafe(older))
                        .execute(&mut conn)
                        .await
                        .unwrap();
                }
                false => {
                    let url = format!("sqlite:{}", app.folder.path().join("nucleus.db").display());
                    let mut conn = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url)
                        .await
                        .unwrap();
                    sqlx::query(older).execute(&mut conn).await.unwrap();
                }
            }
            let run = import_plain(app, id).await;
            assert_eq!(count(&run, "unchanged"), wanted, "{run}");
            assert_eq!(rows(app, id).await.len(), wanted);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spam_and_trash_come_in_where_they_are_wanted() {
    let app = Setting::new(generated()).start().await;
    let entity = app.entity().await;
    let id = app
        .connect_for(&entity, json!({"include_spam_trash": true}))
        .await;
    let run = import_takeout(&app, &id).await;
    assert_eq!(count(&run, "stored"), MESSAGES);
    assert_eq!(app.sync(&id).await["quota_units"], UNITS_AFTER_IMPORT);
    assert_eq!(app.calls(Method::MessagesGet), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_asked_for_meanwhile_follows_the_import() {
    on_both(generated, async |app, id| {
        let export = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        let path = file(app, "takeout.mbox", &export);
        let asking = Asking {
            app: app.url.clone(),
            id: id.to_owned(),
        };
        let importing = Import {
            engine: &app.app.engine,
            shutdown: CancellationToken::new(),
            watcher: &asking,
        };
        let input = Input::Mbox(vec![Place::File(path)]);
        let run = import(&importing, id.parse().unwrap(), input)
            .await
            .unwrap();
        assert_eq!(run.status, "success");
        let runs = app.all(&format!("/integrations/{id}/runs")).await;
        let kinds: Vec<_> = runs
            .iter()
            .map(|run| (&run["kind"], &run["status"]))
            .collect();
        let (sync, import) = (json!("sync"), json!("import"));
        let (queued, success) = (json!("queued"), json!("success"));
        assert_eq!(kinds, [(&sync, &queued), (&import, &success)]);
        app.drain().await;
        app.assert_matches_ledger(id).await;
        assert_eq!(app.calls(Method::MessagesGet), 0);
    })
    .await;
}

/// Asks for a sync as soon as the import begins.
struct Asking {
    app: String,
    id: String,
}

impl Watcher for Asking {
    fn waits_for(&self, run: &Run) {
        panic!("waits for {run:?}");
    }
    fn begins(&self, _: &str, _: Option<u64>) {
        let url = format!("{}/integrations/{}/sync", self.app, self.id);
        let answer = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let client = reqwest::Client::new();
                let request = client.post(url).bearer_auth(crate::harness::OPERATOR_KEY);
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), 202);
                let body = answer.bytes().await.unwrap();
                serde_json::from_slice::<Value>(&body).unwrap()
            })
        });
        let answer = answer.join().unwrap();
        assert_eq!(answer["status"], "running", "it is the import: {answer}");
    }
    fn goes_on_from(&self, _: u64) {}
    fn moved(&self, _: u64, _: &Counts) {}
}
