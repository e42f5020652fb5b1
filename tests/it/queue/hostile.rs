//! A broker that keeps to the letter of "at least once" and no more: it duplicates, reorders, delivers
//! again what was acknowledged, forgets acknowledgements, says that it did not take what it took,
//! counts nothing, and delivers what nobody sent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use nucleus::{
    app::Queue,
    demo::Method,
    domain::event::{DNA_ANALYSIS, SYNC_REQUESTS, SYNC_WORKER},
    queue::{Broker, Delivery, Message, QueueError, Receipt},
    worker::{self, relay},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    child::{PATIENCE, happens},
    doubles::small_mailbox,
    harness::{Setting, assert_adds_up},
    kills::seed,
};

/// How often one message is delivered more than it should be.
const REPEATS: u32 = 3;

/// The broker.
#[derive(Clone)]
struct Hostile(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    random: StdRng,
    /// Sync requests that are to be delivered, and how many repeats each has left.
    waiting: Vec<(Message, u32)>,
    /// What was taken, of any topic.
    taken: Vec<Message>,
    publications: usize,
    repeats: usize,
    refusals: usize,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                random: StdRng::seed_from_u64(seed),
                waiting: Vec::new(),
                taken: Vec::new(),
                publications: 0,
                repeats: 0,
                refusals: 0,
            }),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn put(&self, message: Message, repeats: u32) {
        self.state().waiting.push((message, repeats));
        self.0.changed.notify_waiters();
    }

    /// Any of those that wait; it stays, to come again, always at first and then perhaps.
    fn pick(&self) -> Option<(Message, u32)> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        let count = state.waiting.len();
        let index = state.random.random_range(0..count);
        let (message, repeats) = state.waiting.swap_remove(index);
        let stays = repeats == REPEATS || repeats > 0 && state.random.random_bool(0.5);
        if stays {
            state.repeats += 1;
            state.waiting.push((message.clone(), repeats - 1));
            return Some((message, 0));
        }
        Some((message, repeats))
    }

    /// How many different events it took. A repeat is the same event; and a broker that repeats and
    /// refuses little proves nothing.
    fn told(&self) -> usize {
        let state = self.state();
        let (repeats, refusals) = (state.repeats, state.refusals);
        assert!(repeats > 20 && refusals > 5, "{repeats} {refusals}");
        let mut events: HashMap<&str, &Message> = HashMap::new();
        for message in &state.taken {
            let id = message.attributes["ce-id"].as_str();
            if let Some(before) = events.insert(id, message) {
                assert_eq!(before.data, message.data);
                assert_eq!(before.attributes, message.attributes);
            }
        }
        events.retain(|_, message| message.topic == DNA_ANALYSIS);
        events.len()
    }

    /// What is left to be delivered.
    fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }
}

/// A delivery's way back.
struct Slip {
    broker: Hostile,
    message: Option<(Message, u32)>,
}

impl Receipt for Slip {
    fn ack(mut self: Box<Self>) {
        let Some((message, repeats)) = self.message.take() else {
            return;
        };
        let is_forgotten = repeats > 0 && self.broker.state().random.random_bool(0.4);
        if is_forgotten {
            self.broker.state().repeats += 1;
            self.broker.put(message, repeats - 1);
        }
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        if let Some((message, repeats)) = self.message.take() {
            self.broker.put(message, repeats);
        }
    }
}

#[async_trait]
impl Broker for Hostile {
    async fn publish(&self, message: Message) -> Result<(), QueueError> {
        let (is_taken, is_confirmed) = {
            let mut state = self.state();
            state.publications += 1;
            // Every fourth is refused whatever the seed: chance alone may refuse too few.
            let may_be_confirmed = !state.publications.is_multiple_of(4);
            let is_taken = state.random.random_bool(0.9);
            (is_taken, may_be_confirmed && state.random.random_bool(0.8))
        };
        if is_taken {
            self.state().taken.push(message.clone());
            if message.topic == SYNC_REQUESTS {
                self.put(message, REPEATS);
            }
        }
        if is_taken && is_confirmed {
            return Ok(());
        }
        self.state().refusals += 1;
        Err(QueueError::Unavailable("as a test wants it".to_owned()))
    }

    fn subscribe(
        &self,
        subscription: &'static str,
        _most: usize,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> mpsc::Receiver<Delivery> {
        let (sender, receiver) = mpsc::channel(1);
        let broker = self.clone();
        tasks.spawn(async move {
            while !shutdown.is_cancelled() && !sender.is_closed() {
                let changed = broker.0.changed.notified();
                let picked = (subscription == SYNC_WORKER)
                    .then(|| broker.pick())
                    .flatten();
                let Some((message, repeats)) = picked else {
                    tokio::select! {
                        () = changed => {}
                        () = shutdown.cancelled() => {}
                        () = sender.closed() => {}
                    }
                    continue;
                };
                let delivery = Delivery {
                    message_id: id_of(&message),
                    attributes: message.attributes.clone(),
                    data: message.data.clone(),
                    attempt: None,
                    receipt: Box::new(Slip {
                        broker: broker.clone(),
                        message: Some((message, repeats)),
                    }),
                };
                // What cannot be sent any more is dropped, and so put back.
                let _ = sender.send(delivery).await;
            }
        });
        receiver
    }
}

/// Its repeats have the same, as at Google.
fn id_of(message: &Message) -> String {
    let attributes: BTreeMap<&String, &String> = message.attributes.iter().collect();
    format!("{attributes:?} {:?}", message.data)
}

fn strange(attributes: &[(&str, &str)], data: &'static [u8]) -> Message {
    let attributes = attributes.iter();
    Message {
        topic: SYNC_REQUESTS.to_owned(),
        attributes: attributes
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        data: Bytes::from_static(data),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_broker_costs_nothing_but_messages() {
    const INTEGRATIONS: usize = 20;
    const MESSAGES: u64 = 25;
    let broker = Hostile::new(seed());
    let app = Setting::new(small_mailbox(MESSAGES))
        .queue(Queue::Broker(Arc::new(broker.clone())))
        .start()
        .await;
    let (beside, _) = app.beside(chrono::TimeDelta::zero()).await;
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    for process in [&app.app, &beside] {
        let shared: Arc<dyn Broker> = Arc::new(broker.clone());
        tasks.spawn(worker::work(Arc::clone(process), shutdown.clone()));
        tasks.spawn(relay::run(Arc::clone(process), shared, shutdown.clone()));
    }
    let v1 = "dev.nucleus.sync.requested.v1";
    for message in [
        strange(&[], b""),
        strange(&[("ce-type", v1)], b""),
        strange(&[("ce-type", v1)], b"{\"run_id\": 7}"),
        strange(&[("ce-type", "dev.nucleus.sync.requested.v9")], b"{}"),
        strange(&[("ce-type", v1), ("x", "\0")], b"\xf0\x00"),
    ] {
        broker.put(message, REPEATS);
    }
    let mut runs = BTreeMap::new();
    for _ in 0..INTEGRATIONS {
        let integration = app.connect().await;
        let run = app.request_sync(&integration).await;
        runs.insert(integration, run);
    }
    for (integration, run) in &runs {
        let mut last = Value::Null;
        let ended = happens(PATIENCE, async || {
            last = app.get(&format!("/runs/{run}")).await;
            last["status"] == "success"
        });
        assert!(ended.await, "{last}");
        assert_adds_up(&last);
        assert_eq!(last["counts"]["stored"], MESSAGES);
        let told = happens(PATIENCE, async || {
            app.told(integration).await.len() as u64 == MESSAGES
        });
        assert!(told.await, "{integration}");
        app.assert_matches_ledger(integration).await;
        let all = app.all(&format!("/integrations/{integration}/runs")).await;
        assert_eq!(all.len(), 1);
    }
    let quiet = happens(PATIENCE, async || {
        broker.is_empty() && app.outbox_is_empty().await
    });
    assert!(quiet.await, "messages are left");
    shutdown.cancel();
    tasks.close();
    assert!(
        tokio::time::timeout(Duration::from_secs(8), tasks.wait())
            .await
            .is_ok()
    );
    // Two workers on one run would have asked for the profile and for messages twice.
    assert_eq!(app.calls(Method::GetProfile), INTEGRATIONS);
    assert_eq!(
        app.calls(Method::MessagesGet),
        INTEGRATIONS * MESSAGES as usize
    );
    let parked = nucleus::db::dead_letter::newest(&app.app.engine.db, 100)
        .await
        .unwrap();
    assert_eq!(parked.len(), 5, "each once: {parked:#?}");
    let told = broker.told();
    assert_eq!(app.all("/events").await.len(), told);
}
