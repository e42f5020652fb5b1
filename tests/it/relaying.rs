//! What of the outbox is told where not everything can be: a broker that takes one topic alone, and a program
//! that has no broker any more.

use std::sync::Arc;

use async_trait::async_trait;
use nucleus::{
    app::Queue,
    db::{
        Db,
        integration::{self, Integration},
        outbox, relay,
        sync_run::WorkerId,
    },
    domain::{
        RecordId,
        event::{DNA_ANALYSIS, SYNC_REQUESTS},
        record::{Change, ChangedRecord},
        sync::Scope,
    },
    queue::{Broker, Delivery, Message, QueueError},
    worker::relay::{Relayed, pass},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    doubles::small_mailbox,
    harness::{Setting, TestApp},
};

/// A broker that has no other topic than this one, and nothing to deliver.
struct Only(&'static str);

#[async_trait]
impl Broker for Only {
    async fn publish(&self, message: Message) -> Result<(), QueueError> {
        match message.topic == self.0 {
            true => Ok(()),
            false => Err(QueueError::Missing(message.topic)),
        }
    }

    fn subscribe(
        &self,
        _: &'static str,
        _: usize,
        _: CancellationToken,
        _: &TaskTracker,
    ) -> mpsc::Receiver<Delivery> {
        mpsc::channel(1).1
    }
}

async fn found(app: &TestApp, id: &str) -> Integration {
    let db = &app.app.engine.db;
    integration::find(db, Scope::Operator, id.parse().unwrap())
        .await
        .unwrap()
}

/// An event that becomes true at `db`.
async fn event(app: &TestApp, db: &Db, of: &Integration) {
    let source = outbox::Source {
        entity_id: of.entity_id,
        integration_id: of.id,
        service_name: of.service_name.clone(),
        run_id: None,
        traceparent: None,
    };
    let changed = ChangedRecord {
        id: RecordId::new(),
        external_id: "m1".to_owned(),
        data_type: "email".to_owned(),
        change: Change::Created,
        content_hash: "0".repeat(64),
    };
    let tx = db.begin().await.unwrap();
    outbox::append_dna_events(&tx, &source, vec![changed], app.app.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_published_keeps_no_other_up() {
    for topic in [DNA_ANALYSIS, SYNC_REQUESTS] {
        let broker: Arc<dyn Broker> = Arc::new(Only(topic));
        let app = Setting::new(small_mailbox(1))
            .embedded()
            .queue(Queue::Broker(Arc::clone(&broker)))
            .start()
            .await;
        let id = app.connect().await;
        app.request_sync(&id).await;
        event(&app, &app.app.engine.db, &found(&app, &id).await).await;
        let never = CancellationToken::new();
        let relayed = pass(&app.app, broker.as_ref(), &never).await.unwrap();
        let one_of_each = Relayed {
            published: 1,
            failed: 1,
        };
        assert_eq!(relayed, one_of_each, "{topic}");
        let told = usize::from(topic == DNA_ANALYSIS);
        assert_eq!(app.all("/events").await.len(), told, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_broker_is_told_without_one() {
    let app = Setting::new(small_mailbox(1)).embedded().start().await;
    let id = app.connect().await;
    let of = found(&app, &id).await;
    // As a program with a broker leaves it: one that a relay held when it was ended, and more than a page.
    let before = app.app.engine.db.clone().relayed();
    for _ in 0..130 {
        event(&app, &before, &of).await;
    }
    let relay = WorkerId::new();
    let held = relay::claim(&before, DNA_ANALYSIS, relay, app.app.now(), 1)
        .await
        .unwrap();
    assert_eq!(held.len(), 1);
    app.rows(
        "UPDATE outbox SET lease_until = 1 WHERE state = 'leased' RETURNING topic",
        "",
    )
    .await;
    event(&app, &app.app.engine.db, &of).await;
    assert_eq!(app.all("/events").await.len(), 1);
    app.tick().await;
    assert_eq!(app.all("/events").await.len(), 131);
    let followed = outbox::events_after(&app.app.engine.db, Scope::Operator, 0, 200)
        .await
        .unwrap();
    let positions = followed.iter().map(|event| event.position);
    assert!(positions.eq(1..=131));
    app.tick().await;
    assert_eq!(app.all("/events").await.len(), 131, "each is told once");
}
