//! Google Cloud Pub/Sub, or its emulator, by Google's own crate.
//!
//! Everything has a deadline here: the client itself waits for an unreachable broker without an end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use google_cloud_auth::credentials::{self, Credentials, anonymous};
use google_cloud_gax::{error::rpc::Code, retry_policy::RetryPolicyExt};
use google_cloud_pubsub::{
    Error,
    client::{BasePublisher, Publisher, Subscriber, SubscriptionAdmin, TopicAdmin},
    error::PublishError,
    model,
    retry_policy::RetryableErrors,
    subscriber::{MessageStream, handler::Handler},
};
use tokio::sync::{Notify, RwLock, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Broker, Delivery, Message, QueueError, Receipt};
use crate::domain::{
    errors,
    event::{DNA_ANALYSIS, SYNC_REQUESTS},
};

/// A message is published in this time or counts as not published. Less than the grace at a process's
/// end.
const PUBLISH: Duration = Duration::from_secs(5);
/// A dead worker's messages come to another after this long: the shortest that Pub/Sub allows.
const LEASE: Duration = Duration::from_secs(10);
/// A message is held for this long at most. A worker lets go of a run after ten minutes.
const MAX_HOLD: Duration = Duration::from_secs(11 * 60);
/// So often a worker looks whether the service is there at all,
const LOOK: Duration = Duration::from_secs(5);
/// and an answer may take this long, so an outage of twice this is always seen.
const PATIENCE: Duration = Duration::from_secs(5);
/// A stream that has brought nothing for this long, and of whose messages none is held, is opened anew: after a
/// shorter outage the client may hold one that brings nothing ever again.
const QUIET: Duration = Duration::from_secs(60);
/// A subscription that could not be opened is tried again after this long, doubled up to
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The topics and subscriptions of one project.
pub struct PubSub {
    project_id: String,
    endpoint: Endpoint,
    publishers: RwLock<Arc<Publishers>>,
    pub(super) topics: TopicAdmin,
    pub(super) subscriptions: SubscriptionAdmin,
}

/// One connection to publish by.
type Publishers = HashMap<&'static str, Publisher>;

/// Where the service is, and who asks.
#[derive(Clone)]
struct Endpoint {
    /// Absent for Google's own.
    url: Option<String>,
    credentials: Credentials,
}

impl Endpoint {
    async fn publishers(&self, project_id: &str) -> Result<Publishers, QueueError> {
        let policy = RetryableErrors.with_time_limit(PUBLISH);
        let mut builder = BasePublisher::builder()
            .with_retry_policy(policy)
            .with_credentials(self.credentials.clone());
        if let Some(url) = &self.url {
            builder = builder.with_endpoint(url);
        }
        let publisher = builder.build().await.map_err(unusable)?;
        let publishers = [SYNC_REQUESTS, DNA_ANALYSIS].map(|topic| {
            let name = format!("projects/{project_id}/topics/{topic}");
            (topic, publisher.publisher(name).build())
        });
        Ok(publishers.into())
    }

    async fn subscriber(&self) -> Result<Subscriber, QueueError> {
        let mut builder = Subscriber::builder().with_credentials(self.credentials.clone());
        if let Some(url) = &self.url {
            builder = builder.with_endpoint(url);
        }
        builder.build().await.map_err(unusable)
    }

    async fn topics(&self) -> Result<TopicAdmin, QueueError> {
        let mut builder = TopicAdmin::builder().with_credentials(self.credentials.clone());
        if let Some(url) = &self.url {
            builder = builder.with_endpoint(url);
        }
        builder.build().await.map_err(unusable)
    }

    async fn subscriptions(&self) -> Result<SubscriptionAdmin, QueueError> {
        let mut builder = SubscriptionAdmin::builder().with_credentials(self.credentials.clone());
        if let Some(url) = &self.url {
            builder = builder.with_endpoint(url);
        }
        builder.build().await.map_err(unusable)
    }
}

fn unusable(error: impl std::error::Error) -> QueueError {
    QueueError::Refused(errors::chain(&error))
}

impl PubSub {
    /// Finds the credentials, or takes none for an emulator at `http://host:port`. Connects when there
    /// is something to do.
    pub async fn new(project_id: &str, emulator: Option<&str>) -> Result<Self, QueueError> {
        let credentials = match emulator {
            Some(_) => anonymous::Builder::new().build(),
            None => credentials::Builder::default().build().map_err(unusable)?,
        };
        let endpoint = Endpoint {
            url: emulator.map(str::to_owned),
            credentials,
        };
        Ok(Self {
            project_id: project_id.to_owned(),
            publishers: RwLock::new(Arc::new(endpoint.publishers(project_id).await?)),
            topics: endpoint.topics().await?,
            subscriptions: endpoint.subscriptions().await?,
            endpoint,
        })
    }

    /// Publishes by another connection from now on. One that a network has dropped in silence stays
    /// open for many minutes, and whatever is sent by it is lost.
    async fn reconnect(&self, old: &Arc<Publishers>) {
        let mut current = self.publishers.write().await;
        if !Arc::ptr_eq(&current, old) {
            return;
        }
        match self.endpoint.publishers(&self.project_id).await {
            Ok(publishers) => *current = Arc::new(publishers),
            Err(error) => tracing::warn!(
                error = errors::chain(&error),
                "the old connection is used again"
            ),
        }
    }

    /// The project.
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    pub(super) fn topic_path(&self, topic: &str) -> String {
        format!("projects/{}/topics/{topic}", self.project_id)
    }

    pub(super) fn subscription_path(&self, subscription: &str) -> String {
        format!("projects/{}/subscriptions/{subscription}", self.project_id)
    }
}

/// What an error of the service means to a caller; `what` was asked for.
pub(super) fn queue_error(what: &str, error: &Error) -> QueueError {
    let text = errors::chain(error);
    match error.status().map(|status| status.code) {
        Some(Code::NotFound) => QueueError::Missing(what.to_owned()),
        Some(Code::PermissionDenied | Code::Unauthenticated) => QueueError::Denied(what.to_owned()),
        Some(
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unknown,
        ) => QueueError::Unavailable(text),
        Some(_) => QueueError::Refused(format!("{what}: {text}")),
        None => QueueError::Unavailable(text),
    }
}

#[async_trait]
impl Broker for PubSub {
    async fn publish(&self, message: Message) -> Result<(), QueueError> {
        let topic = message.topic;
        let publishers = Arc::clone(&*self.publishers.read().await);
        let Some(publisher) = publishers.get(topic.as_str()) else {
            return Err(QueueError::Refused(format!(
                "nothing is published to {topic}"
            )));
        };
        let outgoing = model::Message::new()
            .set_data(message.data)
            .set_attributes(message.attributes);
        let Ok(published) = tokio::time::timeout(PUBLISH, publisher.publish(outgoing)).await else {
            self.reconnect(&publishers).await;
            return Err(QueueError::Unavailable(format!(
                "no answer in {} s",
                PUBLISH.as_secs()
            )));
        };
        match published {
            Ok(_) => Ok(()),
            Err(PublishError::Rpc(error)) => Err(queue_error(&topic, &error)),
            Err(error) => Err(QueueError::Unavailable(errors::chain(&error))),
        }
    }

    fn subscribe(
        &self,
        subscription: &'static str,
        most: usize,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> mpsc::Receiver<Delivery> {
        // Nothing waits in the channel: what is not taken is better given to another worker.
        let (sender, receiver) = mpsc::channel(1);
        let receiving = Receiving {
            endpoint: self.endpoint.clone(),
            path: self.subscription_path(subscription),
            most: i64::try_from(most).unwrap_or(i64::MAX),
            sender,
            shutdown,
        };
        tasks.spawn(receiving.run());
        receiver
    }
}

/// The task of one subscription.
struct Receiving {
    endpoint: Endpoint,
    path: String,
    most: i64,
    sender: mpsc::Sender<Delivery>,
    shutdown: CancellationToken,
}

/// Why a stream is not read any more.
enum StreamEnd {
    /// The service said so, or nobody reads, or it is to be opened anew.
    Closed,
    /// The service does not let it be read.
    Failed(QueueError),
}

impl Receiving {
    #[expect(
        clippy::disallowed_methods,
        reason = "a broker that is away is waited for on the machine's clock"
    )]
    async fn run(self) {
        let mut wait = FIRST_WAIT;
        while !self.is_over() {
            match self.receive().await {
                StreamEnd::Closed => wait = FIRST_WAIT,
                StreamEnd::Failed(error) => {
                    tracing::error!(
                        subscription = self.path,
                        error = errors::chain(&error),
                        "the subscription cannot be read"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.stopped() => {}
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Opens a stream by a connection of its own and hands on what comes.
    async fn receive(&self) -> StreamEnd {
        let subscriber = match self.endpoint.subscriber().await {
            Ok(subscriber) => subscriber,
            Err(error) => return StreamEnd::Failed(error),
        };
        let mut stream = subscriber
            .subscribe(self.path.clone())
            .set_max_lease_extension(LEASE)
            .set_max_lease(MAX_HOLD)
            .set_max_outstanding_messages(self.most)
            .build();
        let token = stream.shutdown_token();
        let heard = Arc::new(Notify::new());
        let stop = async {
            self.stopped().await;
            token.shutdown().await;
        };
        let renewal = async {
            tokio::select! {
                () = self.outage() => tracing::warn!(
                    subscription = self.path,
                    "the broker was away; the subscription is opened anew"
                ),
                () = quiet(&heard) => {}
            }
            let closed = tokio::time::timeout(PATIENCE, token.shutdown()).await;
            if closed.is_err() {
                tracing::warn!(subscription = self.path, "the old stream did not close");
            }
        };
        // The stream is polled to its end, also while it is being stopped: a call to `next` that is
        // dropped before the first message leaves a stream behind that swallows messages.
        let end = tokio::select! {
            end = self.forward(&mut stream, &heard) => end,
            () = stop => StreamEnd::Closed,
            () = renewal => StreamEnd::Closed,
        };
        if self.is_over() {
            // Runs under way are still acknowledged; then the acknowledgements leave.
            token.shutdown().await;
        }
        end
    }

    /// Returns once the service has been away and is back. Whatever it answers, it is there.
    #[expect(
        clippy::disallowed_methods,
        reason = "a broker that is away is waited for on the machine's clock"
    )]
    async fn outage(&self) {
        let mut client = None;
        let mut was_away = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let asked = match client.take() {
                Some(client) => Ok(client),
                None => self.endpoint.subscriptions().await,
            };
            let Ok(asked) = asked else { continue };
            let question = asked.get_subscription().set_subscription(&self.path).send();
            let answer = tokio::time::timeout(PATIENCE, question).await;
            let is_there = match answer {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => {
                    let error = queue_error(&self.path, &error);
                    !matches!(error, QueueError::Unavailable(_))
                }
                Err(_) => false,
            };
            if is_there && was_away {
                return;
            }
            if is_there {
                client = Some(asked);
            }
            was_away = was_away || !is_there;
        }
    }

    async fn stopped(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.sender.closed() => {}
        }
    }

    fn is_over(&self) -> bool {
        self.shutdown.is_cancelled() || self.sender.is_closed()
    }

    /// Hands on what comes, until the stream ends.
    async fn forward(&self, stream: &mut MessageStream, heard: &Arc<Notify>) -> StreamEnd {
        while let Some(next) = stream.next().await {
            let (message, handler) = match next {
                Ok(next) => next,
                Err(error) => return StreamEnd::Failed(queue_error(&self.path, &error)),
            };
            heard.notify_one();
            let attempt = handler.delivery_attempt();
            tracing::debug!(
                subscription = self.path,
                message.id = message.message_id,
                attempt,
                "a message was received"
            );
            let delivery = Delivery {
                message_id: message.message_id,
                attributes: message.attributes,
                data: message.data,
                attempt,
                receipt: Box::new(Held {
                    handler,
                    _heard: Arc::clone(heard),
                }),
            };
            // Nobody takes it any more: dropped, it is given back.
            if self.sender.send(delivery).await.is_err() {
                break;
            }
        }
        StreamEnd::Closed
    }
}

/// Returns once nothing has come for long and nothing that came is held; whoever holds a message holds `heard`.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a stream is quiet goes by the machine's clock"
)]
async fn quiet(heard: &Arc<Notify>) {
    loop {
        tokio::select! {
            () = heard.notified() => {}
            () = tokio::time::sleep(QUIET) => {
                if Arc::strong_count(heard) == 1 {
                    return;
                }
            }
        }
    }
}

/// A message that was received and is not acknowledged yet.
struct Held {
    handler: Handler,
    _heard: Arc<Notify>,
}

impl Receipt for Held {
    fn ack(self: Box<Self>) {
        self.handler.ack();
    }
}
