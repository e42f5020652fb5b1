//! Requests that are repeated under an `Idempotency-Key` to several processes on one database, across
//! starts, and after a process was killed in the middle.

use std::time::Duration;

use futures_util::future::join_all;
use nucleus::demo::{Mailbox, generate};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    child::{Api, Server, World, moment},
    db::PostgresDatabase,
    takeover::VAULT_KEY,
};

/// A folder and a database for several servers. The PostgreSQL database is gone when it is dropped.
struct Shared {
    world: World,
    _database: Option<PostgresDatabase>,
}

impl Shared {
    async fn new(is_postgres: bool) -> Self {
        let mut world = World::new(Mailbox::new("me@example.com", 1)).await;
        world.set("NUCLEUS_SECRETS__VAULT_KEY", VAULT_KEY);
        let database = match is_postgres {
            true => Some(PostgresDatabase::create().await),
            false => None,
        };
        if let Some(database) = &database {
            world.set("NUCLEUS_DATABASE__URL", &database.url);
        }
        world.run(&["migrate"]).await.ok();
        Self {
            world,
            _database: database,
        }
    }

    async fn serve(&self) -> Server {
        self.world.listen("serve").await
    }

    /// Kills a server's process without a word.
    async fn kill(mut server: Server) {
        server.child.kill().await;
    }
}

/// What a request to create was answered with, apart from whether the answer was kept.
fn made((status, body, _): &(u16, Value, bool)) -> (u16, Value) {
    (*status, body.clone())
}

/// Sends a request until it is answered: on a machine with much else to do the first may take longer than the
/// others wait for it, and a database may be asked for more than it takes.
async fn repeat(api: &Api, path: &str, body: &Value) -> (u16, Value, bool) {
    loop {
        let answer = api.post_under("the same", path, body).await.unwrap();
        match (answer.0, answer.1["code"].as_str()) {
            (409, Some("idempotency_in_flight")) | (503, Some("unavailable")) => {
                moment(Duration::from_millis(50)).await;
            }
            _ => return answer,
        }
    }
}

/// Sends a request a hundred times at once, to both; gives the one answer.
async fn a_hundred(both: [&Api; 2], path: &str, body: &Value) -> (u16, Value) {
    let requests = (0..100).map(|number| repeat(both[number % 2], path, body));
    let answers: Vec<_> = join_all(requests).await;
    let first = made(&answers[0]);
    for answer in &answers {
        assert_eq!(made(answer), first, "{path}");
    }
    let carried_out = answers.iter().filter(|(_, _, replayed)| !replayed);
    assert_eq!(carried_out.count(), 1, "{path}");
    first
}

async fn one_effect_of_two_processes(is_postgres: bool) {
    let shared = Shared::new(is_postgres).await;
    let (one, two) = (shared.serve().await, shared.serve().await);
    let both = [&one.api, &two.api];
    let name = json!({"name": "Ada"});
    let entity = a_hundred(both, "/entities", &name).await;
    assert_eq!(entity.0, 201);
    let id = entity.1["id"].as_str().unwrap();
    let connection = Api::connection(&shared.world, id);
    let integration = a_hundred(both, "/integrations/", &connection).await;
    assert_eq!(integration.0, 201);
    let sync = format!(
        "/integrations/{}/sync",
        integration.1["id"].as_str().unwrap()
    );
    let run = a_hundred(both, &sync, &json!({})).await;
    assert_eq!(run.0, 202);
    Shared::kill(one).await;
    Shared::kill(two).await;

    let server = shared.serve().await;
    for (path, body, given) in [
        ("/entities", &name, &entity),
        ("/integrations/", &connection, &integration),
        (sync.as_str(), &json!({}), &run),
    ] {
        let again = server.api.post_under("the same", path, body).await;
        let (status, body) = given.clone();
        assert_eq!(again, Some((status, body, true)), "{path}");
    }
    assert_eq!(server.api.all("/entities").await.len(), 1);
    assert_eq!(server.api.all("/integrations").await.len(), 1);
    let runs = sync.replace("/sync", "/runs");
    assert_eq!(server.api.all(&runs).await.len(), 1);
    assert_eq!(shared.world.live_versions().await.len(), 1);
    server.stop().await;
}

/// Fails unless the integration's credentials are there and work.
async fn assert_works(api: &Api, integration: &str) {
    let path = format!("/integrations/{integration}/test");
    assert_eq!(api.post(&path, json!({})).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_repeats_to_two_processes_have_one_effect_and_one_answer() {
    one_effect_of_two_processes(false).await;
    one_effect_of_two_processes(true).await;
}

/// One server dies when it has carried the request out and has not said so; the other is asked.
async fn taken_over_from_the_dead(is_postgres: bool) {
    if !cfg!(feature = "failpoints") {
        panic!("the crash points are not compiled in: run with --features failpoints");
    }
    let shared = Shared::new(is_postgres).await;
    let survivor = shared.serve().await;
    let entity = survivor.api.entity().await;
    let connection = Api::connection(&shared.world, &entity);
    let mut command = shared.world.command(&["serve"]);
    command.env("FAILPOINTS", "idempotency.carried_out=panic");
    let dying = Server::start(command).await;
    let answer = dying.api.post_under("k", "/integrations/", &connection);
    assert_eq!(answer.await, None);
    // The same request waits for the dead one's lease to end, and finds what it has made.
    let answer = survivor
        .api
        .post_under("k", "/integrations/", &connection)
        .await;
    let (status, integration, replayed) = answer.unwrap();
    assert_eq!((status, replayed), (201, false), "{integration}");
    let all = survivor.api.all("/integrations").await;
    assert_eq!(all, std::slice::from_ref(&integration));
    assert_eq!(shared.world.live_versions().await.len(), 1);
    let id = integration["id"].as_str().unwrap();
    assert_works(&survivor.api, id).await;
    survivor.stop().await;
}

/// Takes as long as a lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_takes_over_from_a_process_that_died_in_the_middle() {
    tokio::join!(
        taken_over_from_the_dead(false),
        taken_over_from_the_dead(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_of_a_request_leaves_it_to_be_repeated() {
    let seed = crate::kills::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new(generate::mailbox(1, 1)).await;
    let mut server = world.listen("up").await;
    let (mut unanswered, mut carried_out) = (0, 0);
    for number in 0..20 {
        let entity = server.api.entity().await;
        let connection = Api::connection(&world, &entity);
        let key = number.to_string();
        let api = server.api.clone();
        let asking = api.post_under(&key, "/integrations/", &connection);
        let dying = async {
            // The first one is killed before it can have answered.
            let most = if number == 0 { 1 } else { 20_000 };
            moment(Duration::from_micros(random.random_range(0..most))).await;
            server.child.kill().await;
        };
        let (before, ()) = tokio::join!(asking, dying);
        server = world.listen("up").await;
        let after = server.api.post_under(&key, "/integrations/", &connection);
        let after = after.await.unwrap();
        assert_eq!(after.0, 201, "{after:?}");
        match before {
            Some(before) => assert_eq!(made(&before), made(&after)),
            None => unanswered += 1,
        }
        carried_out += usize::from(!after.2);
        let all = server.api.all("/integrations").await;
        assert_eq!(all.len(), number + 1);
        let id = after.1["id"].as_str().unwrap();
        assert_works(&server.api, id).await;
    }
    println!("{unanswered} of 20 were not answered, {carried_out} repeats were carried out");
    assert!(unanswered > 0 && carried_out > 0);
    server.stop().await;
}
