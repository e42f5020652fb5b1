//! The database going away under load: a server that is stopped without warning again and again, and a
//! disk that is full.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nucleus::demo::{Method, generate};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::{
    child::{Api, Child, PATIENCE, Server, World, happens, in_time, moment},
    harness::assert_adds_up,
    kills::seed,
    postgres_server::PostgresServer,
    takeover::VAULT_KEY,
};

const STOPS: usize = 20;
/// Clients that write all the time.
const CLIENTS: usize = 4;
/// After the database is back, a run goes on within this, but for one that was just being taken: nobody heard
/// whether it was, so its lease of 30 s has to end, and a sweep every 5 s to see that.
const RECOVERY: Duration = Duration::from_secs(10);

/// Makes entities until it is told to end, each under a key of its own and asked for until it is there.
/// Gives their ids by name.
async fn make_entities(
    api: Api,
    client: usize,
    ending: Arc<AtomicBool>,
) -> BTreeMap<String, String> {
    let mut made = BTreeMap::new();
    while !ending.load(Ordering::SeqCst) {
        let name = format!("{client}-{}", made.len());
        let id = make_entity(&api, &name).await;
        made.insert(name, id);
        moment(Duration::from_millis(10)).await;
    }
    made
}

async fn make_entity(api: &Api, name: &str) -> String {
    loop {
        let answer = api
            .post_under(name, "/entities", &json!({"name": name}))
            .await;
        match answer {
            Some((201, body, _)) => return body["id"].as_str().unwrap().to_owned(),
            Some((503, body, _)) => assert_eq!(body["code"], "unavailable", "{body}"),
            other => panic!("{other:?}"),
        }
        moment(Duration::from_millis(50)).await;
    }
}

/// Fails unless exactly the entities are there that clients were told of, each once.
async fn assert_made(api: &Api, made: &BTreeMap<String, String>) {
    let mut found = BTreeMap::new();
    for entity in api.all("/entities").await {
        let text = |field: &str| entity[field].as_str().unwrap().to_owned();
        if text("name") == "Somebody" {
            continue;
        }
        let before = found.insert(text("name"), text("id"));
        assert!(before.is_none(), "{} was made twice", text("name"));
    }
    assert_eq!(&found, made);
}

/// Waits until a run has stored more than before, or has ended.
async fn goes_on(api: &Api, run: &str, stored: &Value) {
    let path = format!("/runs/{run}");
    let mut last = Value::Null;
    let went_on = happens(PATIENCE, async || {
        let Some((200, now)) = api.try_send("GET", &path, None).await else {
            return false;
        };
        last = now;
        last["status"] == "success" || last["counts"]["stored"].as_i64() > stored.as_i64()
    });
    assert!(
        went_on.await,
        "the run does not go on from {stored}: {last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_stops_of_the_database_lose_and_double_nothing() {
    const MESSAGES: u64 = 1_500;
    let mut random = StdRng::seed_from_u64(seed());
    let database = PostgresServer::start("", |_| {});
    let mut world = World::embedded_with(generate::bench_mailbox(MESSAGES, 600), |options| {
        options.latency = Duration::from_millis(10);
        options.log_requests = false;
    })
    .await;
    world.set("NUCLEUS_DATABASE__URL", database.url());
    world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
    // Stops before the first batch of an attempt are attempts that got nowhere.
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "100");
    world.run(&["migrate"]).await.ok();
    let server = world.listen("serve").await;
    let mut workers = [(); 2].map(|()| Child::spawn(world.command(&["work"])));
    // One that finds no database when it starts ends, and says so.
    for worker in &mut workers {
        worker.says("the worker takes sync requests").await;
    }
    let api = &server.api;
    let mut integrations = vec![api.connect(&world).await];
    let mut runs = vec![api.sync(&integrations[0]).await];
    let ending = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS)
        .map(|client| tokio::spawn(make_entities(api.clone(), client, Arc::clone(&ending))));
    let clients: Vec<_> = clients.collect();

    let mut recoveries = Vec::new();
    for stop in 0..STOPS {
        let mut run = api.get(&format!("/runs/{}", runs.last().unwrap())).await;
        // Each run that ends is followed by another, so that every stop meets one.
        if run["status"] == "success" {
            integrations.push(api.connect(&world).await);
            runs.push(api.sync(integrations.last().unwrap()).await);
            run = api.get(&format!("/runs/{}", runs.last().unwrap())).await;
        }
        moment(Duration::from_millis(random.random_range(5..1000))).await;
        tokio::task::block_in_place(|| database.stop_at_once());
        moment(Duration::from_millis(random.random_range(0..300))).await;
        tokio::task::block_in_place(|| database.start_again());
        let back = Instant::now();
        let name = format!("after {stop}");
        in_time(PATIENCE, make_entity(api, &name)).await;
        goes_on(api, runs.last().unwrap(), &run["counts"]["stored"]).await;
        recoveries.push(back.elapsed());
    }
    recoveries.sort_unstable();
    let slow = recoveries.iter().filter(|took| **took > RECOVERY).count();
    println!(
        "{STOPS} stops, {} runs; half of them went on within {:?}, the last within {:?}, {slow} after \
         more than {RECOVERY:?}",
        runs.len(),
        recoveries[STOPS / 2],
        recoveries[STOPS - 1]
    );
    // That a stop meets the moment in which a run is taken is the exception.
    assert!(slow <= STOPS / 2, "{recoveries:?}");

    ending.store(true, Ordering::SeqCst);
    let mut made = BTreeMap::new();
    for client in join_all(clients).await {
        made.extend(client.unwrap());
    }
    assert!(made.len() > STOPS, "{} were made", made.len());
    for stop in 0..STOPS {
        // Under its key it is answered as before.
        let name = format!("after {stop}");
        let id = make_entity(api, &name).await;
        made.insert(name, id);
    }
    assert_made(api, &made).await;
    for (run, integration) in runs.iter().zip(&integrations) {
        let run = api.ended(run).await;
        assert_eq!(run["status"], "success", "{run}");
        assert_eq!(run["counts"]["stored"], MESSAGES, "{run}");
        assert_adds_up(&run);
        world.assert_matches_ledger(api, integration).await;
    }
    for worker in &mut workers {
        worker.signal(nix::sys::signal::Signal::SIGTERM);
        let status = worker.exit(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{}", worker.stderr());
        assert!(!worker.stderr().contains("panicked"), "{}", worker.stderr());
    }
    server.stop().await;
}

/// Lets no file of the process grow beyond this, or as far as it likes.
fn limit_files(child: &Child, bytes: Option<u64>) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(id), Resource::Fsize, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_grow_costs_nothing_but_time() {
    const MESSAGES: u64 = 400;
    let world = World::embedded_with(generate::bench_mailbox(MESSAGES, 600), |options| {
        options.latency = Duration::from_millis(5);
    })
    .await;
    // A process that takes no signal for it is told by the write itself, as when a disk is full.
    let program = world.command(&["up"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" up"])
        .arg(program.get_program())
        .env_clear()
        .current_dir(world.folder.path());
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap());
    }
    let server = Server::start(command).await;
    let integration = server.api.connect(&world).await;
    let mut names = BTreeSet::new();
    let mut refused = 0;
    let run = server.api.sync(&integration).await;
    for round in 0..3 {
        let served = world.google.wait_for(Method::MessagesGet, 60 * (round + 1));
        in_time(PATIENCE, served).await;
        // Not even the first page of a log can be written.
        limit_files(&server.child, Some(0));
        for number in 0..10 {
            let name = format!("{round}-{number}");
            let body = json!({"name": name});
            let answer = server.api.try_send("POST", "/entities", Some(body)).await;
            match answer.unwrap() {
                (201, _) => assert!(names.insert(name)),
                (503, body) => {
                    assert_eq!(body["code"], "unavailable", "{body}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        limit_files(&server.child, None);
        let name = format!("after {round}");
        in_time(PATIENCE, make_entity(&server.api, &name)).await;
        names.insert(name);
    }
    assert_eq!(
        refused, 30,
        "nothing can be kept, so nothing may be promised"
    );
    let ended = server.api.ended(&run).await;
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(ended["counts"]["stored"], MESSAGES, "{ended}");
    assert_adds_up(&ended);
    world.assert_matches_ledger(&server.api, &integration).await;
    let entities = server.api.all("/entities").await;
    let found = entities
        .iter()
        .map(|entity| entity["name"].as_str().unwrap());
    let found: Vec<&str> = found.filter(|name| *name != "Somebody").collect();
    assert_eq!(found.len(), names.len(), "{found:?}");
    assert!(found.iter().all(|name| names.contains(*name)), "{found:?}");
    server.stop().await;
}
