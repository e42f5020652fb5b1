//! Two APIs and two workers on one database and one broker, killed at random and started again: nothing
//! is lost, nothing is doubled, no two syncs of one integration at once, and every event comes at least
//! once under one id.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nucleus::demo::Method;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{end, work};
use crate::{
    broker::{Cloud, DnaEngine},
    child::{Api, Child, Server, World, happens, moment},
    doubles::small_mailbox,
    harness::assert_adds_up,
    kills::seed,
};

/// Integrations, where `NUCLEUS_CHAOS` does not say how many.
const INTEGRATIONS: usize = 40;
const MESSAGES: usize = 6;
const KILLS: usize = 20;
/// Everything has to be done this long after the last kill: leases of messages and of runs, and what
/// the emulator hands to readers that are gone.
const REST: Duration = Duration::from_secs(300);

#[expect(
    clippy::disallowed_methods,
    reason = "how much is tested is up to who runs the tests"
)]
fn integrations() -> usize {
    let given = std::env::var("NUCLEUS_CHAOS").ok();
    given.map_or(INTEGRATIONS, |text| text.parse().unwrap())
}

/// Connects an account, and asks for its sync until somebody has heard it.
async fn connect(cloud: &Cloud, apis: &[Api], turn: usize) -> (String, String) {
    let api = |turn: usize| &apis[turn % apis.len()];
    let entity = api(turn).entity().await;
    let body = Api::connection(&cloud.world, &entity);
    let made = api(turn).post("/integrations/", body).await;
    let integration = made["id"].as_str().unwrap().to_owned();
    let run = api(turn + 1).sync(&integration).await;
    (integration, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_killed_at_random_lose_and_double_nothing() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut world = World::embedded_with(small_mailbox(MESSAGES as u64), |options| {
        options.latency = Duration::from_millis(20);
    })
    .await;
    world.set("NUCLEUS_SYNC__MAX_ATTEMPTS", "100");
    let cloud = Cloud::around(world).await;
    let mut engine = DnaEngine::new(&cloud.project);
    let mut servers: Vec<Server> = Vec::new();
    let mut workers: Vec<Child> = Vec::new();
    for _ in 0..2 {
        servers.push(cloud.world.listen("serve").await);
        workers.push(work(&cloud.world).await);
    }
    let wanted = integrations();
    let mut runs = BTreeMap::new();
    for kill in 0..KILLS {
        let until = wanted * (kill + 1) / KILLS;
        let apis: Vec<Api> = servers.iter().map(|server| server.api.clone()).collect();
        while runs.len() < until {
            let (integration, run) = connect(&cloud, &apis, runs.len()).await;
            runs.insert(integration, run);
        }
        moment(Duration::from_millis(random.random_range(5..800))).await;
        let index = random.random_range(0..2);
        if random.random_bool(0.7) {
            workers[index].kill().await;
            workers[index] = Child::spawn(cloud.world.command(&["work"]));
        } else {
            servers[index].child.kill().await;
            servers[index] = cloud.world.listen("serve").await;
        }
    }
    let done = "SELECT count(*) FROM sync_runs WHERE status = 'success'";
    let all = happens(REST, async || cloud.number(done).await == wanted as i64).await;
    assert!(all, "{} of {wanted}", cloud.number(done).await);
    let left = "SELECT count(*) FROM outbox WHERE state <> 'published'";
    let all = happens(REST, async || cloud.number(left).await == 0).await;
    assert!(all, "{} messages are left", cloud.number(left).await);

    let api = &servers[0].api;
    let mut events = 0;
    for (integration, run) in &runs {
        let ended = api.ended(run).await;
        assert_adds_up(&ended);
        assert_eq!(ended["counts"]["stored"], MESSAGES, "{ended}");
        events += usize::try_from(ended["events"].as_i64().unwrap()).unwrap();
        let all = api.all(&format!("/integrations/{integration}/runs")).await;
        assert_eq!(all.len(), 1);
        cloud.world.assert_matches_ledger(api, integration).await;
    }
    assert_eq!(
        cloud.number("SELECT count(*) FROM raw_data").await,
        (wanted * MESSAGES) as i64
    );
    // Nothing is given up by the program's own count. The emulator also hands messages to readers that are
    // dead, and may come to give one up: it is kept, and its run is done all the same.
    let given_up = "SELECT count(*) FROM dead_letters WHERE topic <> 'nucleus-sync-dead-letter'";
    assert_eq!(cloud.number(given_up).await, 0);
    let told: BTreeSet<String> = api
        .all("/events")
        .await
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told.len(), events);
    engine.read(events, events, Duration::from_secs(30)).await;
    let received: BTreeSet<String> = engine.events.keys().cloned().collect();
    assert_eq!(received, told, "each event came, under one id");
    // A kill costs what the killed process had in its hands, and nothing is fetched by two at once.
    let fetched = cloud.world.google.served(Method::MessagesGet);
    let least = wanted * MESSAGES;
    println!(
        "{KILLS} kills, {wanted} integrations, {least} messages, {fetched} fetched, {} events in {} deliveries",
        events, engine.deliveries
    );
    assert!(fetched - least <= KILLS * 4 * MESSAGES, "{fetched}");
    for worker in workers {
        end(worker).await;
    }
    for server in servers {
        server.stop().await;
    }
    engine.close().await;
}
