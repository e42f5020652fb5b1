//! What the program needs of a message broker: publish, and receive until told to stop.
//!
//! Delivery is at least once, in any order: whoever receives decides by its own rows what is left to
//! do. On embedded parts there is no broker, and workers lease the outbox's rows. This room must not
//! know what messages mean.

use std::{collections::HashMap, fmt};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub mod pubsub;
pub mod resources;

/// A message that is to be published.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic, without project.
    pub topic: String,
    /// What subscriptions filter by, and the envelope.
    pub attributes: HashMap<String, String>,
    /// The body.
    pub data: Bytes,
}

/// Why something was not published, or not found out.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The topic or subscription is not there; the text names it.
    #[error("{0} is not there: `nucleus doctor --create` makes what is missing")]
    Missing(String),
    /// This process may not do that; the text names what.
    #[error("{0}: permission denied")]
    Denied(String),
    /// The broker does not answer in time, or says that it cannot at the moment.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("the broker refused: {0}")]
    Refused(String),
}

/// A message that was received. Dropping it gives it back to the broker, so that a panic or an early
/// return means that it comes again.
pub struct Delivery {
    /// The broker's own id of the message. A message that was published twice has two.
    pub message_id: String,
    /// The attributes.
    pub attributes: HashMap<String, String>,
    /// The body.
    pub data: Bytes,
    /// How often the broker has delivered it, where it counts.
    pub attempt: Option<i32>,
    /// Tells the broker that it is done with.
    pub receipt: Box<dyn Receipt>,
}

/// What the broker gave to acknowledge a delivery by. Dropped, the message is given back.
pub trait Receipt: Send {
    /// The message is done with. Best effort: it may come again all the same.
    fn ack(self: Box<Self>);
}

impl Delivery {
    /// The message is done with.
    pub fn ack(self) {
        self.receipt.ack();
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message_id", &self.message_id)
            .field("attributes", &self.attributes)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// A message broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes, within a few seconds or not at all as far as can be told: after an error the message
    /// may have been published.
    async fn publish(&self, message: Message) -> Result<(), QueueError>;

    /// Receives from a subscription, by its name without project, until `shutdown`, or until nobody
    /// takes deliveries any more. What was received and not taken by then is given back. The task
    /// that does so is one of `tasks`, and ends once every delivery that was taken is done with.
    /// A broker that is away is tried again. `most` are given out at a time, as far as the broker
    /// can be told; the caller must bound its work itself.
    fn subscribe(
        &self,
        subscription: &'static str,
        most: usize,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> mpsc::Receiver<Delivery>;
}
