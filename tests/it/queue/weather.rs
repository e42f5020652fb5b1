//! A broker that goes away and comes back: it costs time and nothing else, and nothing hangs.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{QUIET, end, work};
use crate::{
    broker::{Cloud, DnaEngine, emulator},
    child::{World, happens, in_time, moment},
    doubles::small_mailbox,
};

/// Whether what stands between the program and the broker lets anything through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Connections are broken, and new ones too.
    Broken,
    /// Connections stand, and nothing comes through. They never learn that the broker is back.
    Silent,
}

/// A TCP proxy before the emulator; gives its address and what opens and shuts it.
async fn gate() -> (String, watch::Sender<Gate>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gate = watch::Sender::new(Gate::Open);
    let turned = gate.clone();
    tokio::spawn(async move {
        let swallowed = Arc::new(std::sync::Mutex::new(Vec::new()));
        while let Ok((mut client, _)) = listener.accept().await {
            let mut gate = turned.subscribe();
            let swallowed = Arc::clone(&swallowed);
            tokio::spawn(async move {
                if *gate.borrow_and_update() == Gate::Open {
                    let mut broker = TcpStream::connect(emulator()).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut broker) => return,
                        _ = gate.wait_for(|gate| *gate != Gate::Open) => {}
                    }
                }
                if *gate.borrow() == Gate::Silent {
                    // Held for as long as the test lives.
                    swallowed.lock().unwrap().push(client);
                }
            });
        }
    });
    (address, gate)
}

/// How many seconds the broker is away, where `NUCLEUS_AWAY` does not say it: longer than every deadline
/// of the program.
const AWAY: u64 = 20;

#[expect(
    clippy::disallowed_methods,
    reason = "how long is tested is up to who runs the tests"
)]
fn away() -> Duration {
    let given = std::env::var("NUCLEUS_AWAY").ok();
    Duration::from_secs(given.map_or(AWAY, |text| text.parse().unwrap()))
}

async fn away_and_back(how: Gate) {
    let (address, gate) = gate().await;
    let mut cloud = Cloud::around(World::embedded(small_mailbox(40)).await).await;
    let mut engine = DnaEngine::new(&cloud.project);
    cloud.world.set("PUBSUB_EMULATOR_HOST", address);
    let server = cloud.world.listen("serve").await;
    let worker = work(&cloud.world).await;
    let mut integrations = Vec::new();
    for _ in 0..3 {
        integrations.push(server.api.connect(&cloud.world).await);
    }
    let first = server.api.sync(&integrations[0]).await;
    assert_eq!(server.api.ended(&first).await["status"], "success");

    gate.send_replace(how);
    // The API neither waits nor refuses.
    let second = in_time(Duration::from_secs(5), server.api.sync(&integrations[1])).await;
    moment(away()).await;
    let third = in_time(Duration::from_secs(5), server.api.sync(&integrations[2])).await;
    assert_eq!(server.api.get("/readyz").await["status"], "ok");
    gate.send_replace(Gate::Open);

    let mut wanted = 0;
    for (run, integration) in [first, second, third].iter().zip(&integrations) {
        // What the connections that never learn cost is bounded too.
        let ended = happens(Duration::from_secs(150), async || {
            server.api.get(&format!("/runs/{run}")).await["status"] == "success"
        });
        assert!(ended.await, "{}", worker.stderr());
        let ended = server.api.ended(run).await;
        wanted += usize::try_from(ended["events"].as_i64().unwrap()).unwrap();
        cloud
            .world
            .assert_matches_ledger(&server.api, integration)
            .await;
    }
    engine.read(wanted, wanted, QUIET).await;
    assert_eq!(engine.events.len(), wanted);
    assert_eq!(cloud.number("SELECT count(*) FROM sync_runs").await, 3);
    assert_eq!(cloud.number("SELECT count(*) FROM dead_letters").await, 0);
    end(worker).await;
    server.stop().await;
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_connections_break_costs_nothing_but_time() {
    away_and_back(Gate::Broken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_falls_silent_costs_nothing_but_time() {
    away_and_back(Gate::Silent).await;
}
