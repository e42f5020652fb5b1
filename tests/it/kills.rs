//! What SIGKILL and an abort at each named crash point may cost: nothing but a batch of fetches.

use std::{
    collections::BTreeSet,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use nucleus::demo::{Method, generate};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    backends,
    child::{Api, Child, PATIENCE, Server, World, happens, moment},
    harness::assert_adds_up,
    importing::abort_while_importing,
};

const KILLS: usize = 50;
const MESSAGES: u64 = 2_000;
/// A batch of 100 that is complete and not committed and the rest of what it was filled from (16), what is
/// understood (16), is being understood (16), waits for that (32) or for room there (1), and what is in
/// flight (8).
const COST_OF_A_KILL: usize = 100 + 16 + 16 + 16 + 32 + 1 + 8;

/// From `NUCLEUS_SEED`, or another each time; printed, so that a failure can be had again.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the tester's own variable, not the program's, and the tester's own screen"
)]
pub fn seed() -> u64 {
    let given = std::env::var("NUCLEUS_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("NUCLEUS_SEED={seed}");
    seed
}

/// Rows, counts and events of a database whose process is dead; they change together or not at all.
pub async fn assert_in_step(world: &World) -> i64 {
    let mut database = world.database().await;
    let (rows, stored, changed, told): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT
            (SELECT count(*) FROM raw_data),
            (SELECT coalesce(sum(json_extract(counts, '$.stored')), 0) FROM sync_runs),
            (SELECT coalesce(sum(json_extract(counts, '$.stored')
                + json_extract(counts, '$.updated') + json_extract(counts, '$.deleted')), 0)
             FROM sync_runs),
            (SELECT coalesce(sum(json_array_length(data, '$.records')), 0) FROM outbox
             WHERE topic = 'nucleus-dna-analysis')",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!((rows, changed), (stored, told), "rows, counts, events");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_at_random_moments_lose_and_double_nothing() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mailbox = generate::bench_mailbox(MESSAGES, 600);
    let mut world = World::embedded_with(mailbox, |options| {
        options.latency = Duration::from_millis(10);
        options.log_requests = false;
    })
    .await;
    // Kills before the first batch of a start are attempts that got nowhere.
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "100");
    let mut server = world.listen("up").await;
    let mut integrations = vec![server.api.connect(&world).await];
    let mut runs = vec![server.api.sync(&integrations[0]).await];
    let mut kills = 0;
    while kills < KILLS {
        // Each run that ends is followed by another, so that every kill meets one.
        let run = server
            .api
            .get(&format!("/runs/{}", runs.last().unwrap()))
            .await;
        if run["status"] == "success" {
            let integration = server.api.connect(&world).await;
            runs.push(server.api.sync(&integration).await);
            integrations.push(integration);
        }
        moment(Duration::from_millis(random.random_range(5..1500))).await;
        server.child.kill().await;
        kills += 1;
        assert_in_step(&world).await;
        if kills % 10 == 0 {
            // And one before it listens.
            let mut child = Child::spawn(world.command(&["up"]));
            moment(Duration::from_millis(random.random_range(5..400))).await;
            child.kill().await;
            kills += 1;
            assert_in_step(&world).await;
        }
        server = world.listen("up").await;
    }
    for (run, integration) in runs.iter().zip(&integrations) {
        let run = server.api.ended(run).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(run["counts"]["stored"], MESSAGES, "{run}");
        assert_adds_up(&run);
        world.assert_matches_ledger(&server.api, integration).await;
    }
    let fetched = world.google.served(Method::MessagesGet);
    let wanted = integrations.len() * MESSAGES as usize;
    println!(
        "{kills} kills, {} runs, {wanted} messages, {fetched} fetched",
        runs.len()
    );
    assert!(fetched - wanted <= kills * COST_OF_A_KILL);
    assert_in_step(&world).await;
    let mut database = world.database().await;
    // That comes after what ends a run.
    let acknowledged = happens(PATIENCE, async || {
        let sql = "SELECT count(*) FROM outbox WHERE topic <> 'nucleus-dna-analysis'";
        let requests = sqlx::query_scalar::<_, i64>(sql)
            .fetch_one(&mut database)
            .await;
        requests.unwrap() == 0
    });
    assert!(
        acknowledged.await,
        "not every request comes to be acknowledged"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_the_first_start_leave_what_the_next_one_can_use() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut unfinished = 0;
    for _ in 0..20 {
        let mut world = World::embedded(generate::bench_mailbox(1, 600)).await;
        world.unset("NUCLEUS_HTTP__OPERATOR_KEY");
        let mut child = Child::spawn(world.command(&["up"]));
        // The first migrations are applied by the time the file is there.
        let file = world.data_dir().join("nucleus.db");
        assert!(happens(PATIENCE, async || file.exists()).await);
        moment(Duration::from_millis(random.random_range(0..60))).await;
        child.kill().await;
        unfinished += usize::from(!child.stdout().contains("listens"));
        let server = world.listen("up").await;
        // Whichever start showed it, the key that was shown last is known and opens.
        let shown = child.stdout() + &server.child.stdout();
        let key = shown.lines().rfind(|line| line.starts_with("nk_"));
        server.api.with_key(key.unwrap()).entity().await;
        let status = world.run(&["migrate", "--status"]).await.ok();
        assert!(!status.contains("pending"), "{status}");
        server.stop().await;
    }
    assert!(unfinished > 5, "{unfinished} were killed in time");
}

/// Every `fail_point!` in the source, by name.
pub fn crash_points() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.extend(crash_points_in(&path));
            }
        }
    }
    names
}

fn crash_points_in(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let after = text.split("fail_point!(\"").skip(1);
    after
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

/// Starts `up` so that it dies at a crash point, the `skip + 1`th time it comes there.
async fn start_with_crash(world: &World, point: &str, skip: usize) -> Server {
    let mut command = world.command(&["up"]);
    let action = match skip {
        0 => format!("{point}=panic"),
        _ => format!("{point}={skip}*off->panic"),
    };
    command.env("FAILPOINTS", action);
    Server::start(command).await
}

async fn assert_crashes(server: &mut Server, point: &str) {
    assert_dies(&mut server.child, point).await;
}

/// Fails unless the process dies at this crash point.
pub async fn assert_dies(child: &mut Child, point: &str) {
    let status = child.exit(PATIENCE).await;
    let stderr = child.stderr();
    assert_eq!(
        status.signal(),
        Some(Signal::SIGABRT as i32),
        "{point}: {stderr}"
    );
    assert!(
        stderr.contains(&format!("failpoint {point} panic")),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_at_any_crash_point_loses_and_doubles_nothing() {
    if !cfg!(feature = "failpoints") {
        panic!(
            "the crash points are not compiled in: run with --features failpoints, as scripts/test does"
        );
    }
    let points = crash_points();
    // What a message and a record pass on their way, and what a credential does.
    for point in [
        "run.claimed",
        "run.fetched",
        "run.parsed",
        "batch.rows",
        "batch.cursor",
        "batch.outbox",
        "batch.commit",
        "batch.committed",
        "import.begun",
        "import.read",
        "import.understood",
        "import.end",
        "import.ended",
        "resync.commit",
        "resync.committed",
        "run.end",
        "run.ended",
        "worker.ack",
        "secret.intent",
        "secret.put",
        "connect.taken",
        "connect.exchanged",
        "connect.kept",
        "connect.commit",
        "connect.connected",
        "idempotency.claimed",
        "idempotency.carried_out",
        "idempotency.kept",
    ] {
        assert!(points.contains(point), "the source lacks {point}");
    }
    for point in &points {
        match point.split_once('.').unwrap().0 {
            "idempotency" => abort_under_a_key(point, Kept::AsChosen).await,
            "secret" | "connect" => abort_around_a_credential(point, Kept::AsChosen).await,
            "resync" => abort_in_a_later_sync(point, Later::Resync).await,
            "import" => abort_while_importing(point, 0).await,
            // Embedded, nothing is relayed: `queue.rs` aborts there.
            "relay" => {}
            // Of a service that rotates refresh tokens: `refreshes.rs` dies there.
            "refresh" => {}
            // Of a connection that is being ended: `disconnecting.rs` dies there.
            "disconnect" => {}
            // Of an account that waits to be confirmed: `unconfirmed.rs` dies there.
            "waiting" => {}
            // Of a service's word on credentials that are replaced meanwhile: `standing.rs` stops there.
            "standing" => {}
            // Of the vault: `vault_rotation.rs` dies there.
            "vault" => {}
            "batch" => {
                abort_while_importing(point, 1).await;
                abort_while_syncing(point, 0).await;
                // Later batches have rows, events and a cursor before them.
                abort_while_syncing(point, 2).await;
                abort_in_a_later_sync(point, Later::Incremental).await;
            }
            _ => abort_while_syncing(point, 0).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_around_a_credential_leaves_nothing_in_secret_manager_that_is_not_swept() {
    let points = crash_points();
    let around = |point: &&String| point.starts_with("secret.") || point.starts_with("connect.");
    let mut aborted = 0;
    for point in points.iter().filter(around) {
        abort_around_a_credential(point, Kept::InSecretManager).await;
        aborted += 1;
    }
    assert!(aborted >= 7, "{aborted}");
}

/// Where the credentials of a test are.
#[derive(Clone, Copy)]
enum Kept {
    AsChosen,
    InSecretManager,
}

async fn abort_around_a_credential(point: &str, kept: Kept) {
    if point.starts_with("secret.") {
        abort_under_a_key(point, kept).await;
        abort_while_connecting(point, kept).await;
    }
    abort_in_a_browsers_flow(point, kept).await;
}

async fn connecting(kept: Kept) -> World {
    let mut world = World::embedded(generate::bench_mailbox(20, 600)).await;
    if let Kept::InSecretManager = kept {
        world.keep_in_secret_manager(&backends::secret_manager_url());
    }
    world
}

/// An hour later nothing is left but the version that the one row names.
async fn assert_swept(world: &World, point: &str) {
    let mut database = world.database().await;
    let long_ago = "UPDATE secret_intents SET created_at = '2020-01-01 00:00:00+00:00'";
    sqlx::query(long_ago).execute(&mut database).await.unwrap();
    world.run(&["tick"]).await.ok();
    let (intents, path): (i64, String) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM secret_intents),
            (SELECT secret_path FROM entity_integrations)",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(intents, 0, "{point}");
    assert_eq!(
        world.live_versions().await,
        BTreeSet::from([path]),
        "{point}"
    );
}

async fn abort_while_syncing(point: &str, skip: usize) {
    const FEW: u64 = 350;
    let world = World::embedded(generate::bench_mailbox(FEW, 600)).await;
    let mut server = start_with_crash(&world, point, skip).await;
    let integration = server.api.connect(&world).await;
    let path = format!("/integrations/{integration}/sync");
    // The process may die before its answer is through.
    let _answer = server.api.try_send("POST", &path, Some(json!({}))).await;
    assert_crashes(&mut server, point).await;
    let rows = assert_in_step(&world).await;
    let fetched_before = world.google.served(Method::MessagesGet);

    let server = world.listen("up").await;
    // Where the run ended before the crash this is a second one, which finds nothing new.
    let run = server.api.sync(&integration).await;
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{point}: {ended}");
    assert_adds_up(&ended);
    world.assert_matches_ledger(&server.api, &integration).await;
    assert_in_step(&world).await;
    let fetched = world.google.served(Method::MessagesGet);
    assert!(fetched_before - rows as usize <= COST_OF_A_KILL, "{point}");
    assert!(fetched - FEW as usize <= COST_OF_A_KILL, "{point}");
    server.stop().await;
}

/// How changes are found after a first sync.
#[derive(Clone, Copy, PartialEq)]
enum Later {
    Incremental,
    Resync,
}

async fn abort_in_a_later_sync(point: &str, later: Later) {
    let world = World::embedded(generate::bench_mailbox(60, 600)).await;
    let server = world.listen("up").await;
    let integration = server.api.connect(&world).await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    server.stop().await;
    world.google.with_mailbox(|mailbox| {
        let ids = mailbox.ids();
        for id in &ids[..10] {
            mailbox.delete(id);
        }
        for id in &ids[10..25] {
            mailbox.relabel(id, &["STARRED"], &["INBOX"]);
        }
        for serial in 0..5 {
            mailbox.deliver(generate::arrival(serial, 1), &["INBOX"]);
        }
        if later == Later::Resync {
            mailbox.expire_history();
        }
    });
    let mut server = start_with_crash(&world, point, 0).await;
    let path = format!("/integrations/{integration}/sync");
    let _answer = server.api.try_send("POST", &path, Some(json!({}))).await;
    assert_crashes(&mut server, point).await;
    assert_in_step(&world).await;

    let server = world.listen("up").await;
    let run = server.api.sync(&integration).await;
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{point}: {ended}");
    assert_adds_up(&ended);
    world.assert_matches_ledger(&server.api, &integration).await;
    assert_in_step(&world).await;
    server.stop().await;
}

async fn abort_while_connecting(point: &str, kept: Kept) {
    let world = connecting(kept).await;
    let mut server = start_with_crash(&world, point, 0).await;
    let entity = server.api.entity().await;
    let body = Api::connection(&world, &entity);
    let answer = server
        .api
        .try_send("POST", "/integrations/", Some(body.clone()))
        .await;
    assert_eq!(
        answer, None,
        "{point}: no answer may promise what is not there"
    );
    assert_crashes(&mut server, point).await;

    let server = world.listen("up").await;
    assert!(server.api.all("/integrations").await.is_empty(), "{point}");
    let mut database = world.database().await;
    let intents: i64 = sqlx::query_scalar("SELECT count(*) FROM secret_intents")
        .fetch_one(&mut database)
        .await
        .unwrap();
    // It tells the sweep of a version that nothing names.
    assert_eq!(intents, 1, "{point}");
    let integration = server.api.post("/integrations/", body).await;
    let integration = integration["id"].as_str().unwrap();
    let run = server.api.sync(integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    world.assert_matches_ledger(&server.api, integration).await;
    server.stop().await;
    assert_swept(&world, point).await;
}

/// A client that was cut off repeats its request, and finds one thing made, with what belongs to it.
async fn abort_under_a_key(point: &str, kept: Kept) {
    let world = connecting(kept).await;
    if point.starts_with("idempotency.") {
        let mut server = start_with_crash(&world, point, 0).await;
        let body = json!({"name": "Ada"});
        let answer = server.api.post_under("k", "/entities", &body).await;
        assert_eq!(answer, None, "{point}");
        assert_crashes(&mut server, point).await;
        let server = world.listen("up").await;
        let made = repeat(&server.api, "/entities", &body, point).await;
        assert_eq!(server.api.all("/entities").await, [made], "{point}");
        server.stop().await;
    }
    let server = world.listen("up").await;
    let entity = server.api.entity().await;
    let body = Api::connection(&world, &entity);
    server.stop().await;
    let mut server = start_with_crash(&world, point, 0).await;
    let answer = server.api.post_under("k", "/integrations/", &body).await;
    assert_eq!(answer, None, "{point}");
    assert_crashes(&mut server, point).await;
    let server = world.listen("up").await;
    let made = repeat(&server.api, "/integrations/", &body, point).await;
    let all = server.api.all("/integrations").await;
    assert_eq!(all, std::slice::from_ref(&made), "{point}");
    let integration = made["id"].as_str().unwrap();
    let run = server.api.sync(integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success", "{point}");
    let mut database = world.database().await;
    let announced: i64 = sqlx::query_scalar("SELECT count(*) FROM secret_intents")
        .fetch_one(&mut database)
        .await
        .unwrap();
    // What an abort left of a first attempt is announced to the sweep.
    assert_eq!(
        announced,
        i64::from(point.starts_with("secret.")),
        "{point}"
    );
    let versions = world.live_versions().await.len();
    let left_over = usize::from(point == "secret.put");
    assert_eq!(versions, 1 + left_over, "{point}");
    server.stop().await;
    assert_swept(&world, point).await;
}

/// Repeats a request that was cut off: it is carried out, or was; and its answer stays the same.
async fn repeat(api: &Api, path: &str, body: &Value, point: &str) -> Value {
    let (status, made, replayed) = api.post_under("k", path, body).await.unwrap();
    assert_eq!(status, 201, "{point}: {made}");
    assert_eq!(replayed, point == "idempotency.kept", "{point}");
    let again = api.post_under("k", path, body).await;
    assert_eq!(again, Some((201, made.clone(), true)), "{point}");
    made
}

/// The account is connected already, and connected again: whatever the abort leaves, the connection
/// has credentials that work, and what nobody names is announced to the sweep.
async fn abort_in_a_browsers_flow(point: &str, kept: Kept) {
    let world = connecting(kept).await;
    let server = world.listen("up").await;
    let entity = server.api.entity().await;
    let body = Api::connection(&world, &entity);
    let integration = server.api.post("/integrations/", body).await;
    let integration = integration["id"].as_str().unwrap();
    server.stop().await;

    let mut server = start_with_crash(&world, point, 0).await;
    let flow = server.api.connect_in_a_browser(&world, &entity).await;
    assert!(flow.is_err(), "{point}");
    assert_crashes(&mut server, point).await;

    let server = world.listen("up").await;
    let run = server.api.sync(integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success", "{point}");
    server
        .api
        .connect_in_a_browser(&world, &entity)
        .await
        .unwrap();
    let all = server.api.all("/integrations").await;
    assert_eq!(all.len(), 1, "{point}");
    let run = server.api.sync(integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success", "{point}");
    world.assert_matches_ledger(&server.api, integration).await;
    let mut database = world.database().await;
    let announced: i64 = sqlx::query_scalar("SELECT count(*) FROM secret_intents")
        .fetch_one(&mut database)
        .await
        .unwrap();
    let versions = world.live_versions().await.len();
    assert!(versions >= 1, "{point}");
    assert!(
        versions - 1 <= announced as usize,
        "{point}: {versions} versions, {announced} announced"
    );
    server.stop().await;
    assert_swept(&world, point).await;
}
