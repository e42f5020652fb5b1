//! The topics and subscriptions that the program needs: whether they are there and as they must be,
//! how an operator makes them, and making them.

use std::time::Duration;

use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::{Error, model};
use google_cloud_wkt::Duration as WireDuration;

use super::{
    QueueError,
    pubsub::{PubSub, queue_error},
};
use crate::domain::event::{
    DNA_ANALYSIS, DNA_ENGINE, SYNC_DEAD_LETTER, SYNC_DEAD_LETTER_READER, SYNC_REQUESTS,
    SYNC_SCHEDULER, SYNC_TICKS, SYNC_WORKER,
};

/// One question to the service, at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// In seconds. Workers extend by themselves; this is for other readers.
const ACK_DEADLINE: i32 = 60;
/// Deliveries after which the broker gives a sync request up. The program's own count of a run's
/// failures comes first; this is for what kills every worker before it can count.
const MAX_DELIVERIES: i32 = 20;
/// A message that was given back comes again after this long, in seconds,
const FIRST_BACKOFF: i64 = 10;
/// doubled up to this.
const LONGEST_BACKOFF: i64 = 600;
/// Messages nobody takes are kept for so long, in seconds: a week, or ten minutes for ticks, of
/// which the next is as good.
const KEPT: i64 = 7 * 24 * 3600;
const TICKS_KEPT: i64 = 600;

/// Topics, those first that others name.
pub const TOPICS: [&str; 4] = [SYNC_DEAD_LETTER, SYNC_REQUESTS, SYNC_TICKS, DNA_ANALYSIS];

/// A subscription as it must be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Its name.
    pub name: &'static str,
    /// The topic it reads.
    pub topic: &'static str,
    /// Whether the broker gives messages up to [`SYNC_DEAD_LETTER`].
    pub gives_up: bool,
    /// Which messages, in the broker's own words; all where absent.
    pub filter: Option<&'static str>,
    /// How long untaken messages are kept, in seconds.
    pub kept_s: i64,
}

/// Subscriptions.
pub const SUBSCRIPTIONS: [Wanted; 4] = [
    Wanted {
        name: SYNC_DEAD_LETTER_READER,
        topic: SYNC_DEAD_LETTER,
        gives_up: false,
        filter: None,
        kept_s: KEPT,
    },
    Wanted {
        name: SYNC_WORKER,
        topic: SYNC_REQUESTS,
        gives_up: true,
        filter: None,
        kept_s: KEPT,
    },
    Wanted {
        name: SYNC_SCHEDULER,
        topic: SYNC_TICKS,
        gives_up: false,
        filter: None,
        kept_s: TICKS_KEPT,
    },
    Wanted {
        name: DNA_ENGINE,
        topic: DNA_ANALYSIS,
        gives_up: false,
        filter: Some(DNA_ENGINE_FILTER),
        kept_s: KEPT,
    },
];

/// What the DNA Engine gets.
const DNA_ENGINE_FILTER: &str = r#"attributes.event_type = "dna_analysis_requested""#;

/// A topic or a subscription.
#[derive(Debug, Clone, Copy)]
pub enum Resource {
    /// A topic, by its name.
    Topic(&'static str),
    /// A subscription.
    Subscription(Wanted),
}

impl Resource {
    /// All of them, in the order in which they can be made.
    pub fn all() -> impl Iterator<Item = Self> {
        let topics = TOPICS.into_iter().map(Self::Topic);
        topics.chain(SUBSCRIPTIONS.into_iter().map(Self::Subscription))
    }

    /// What it is, with its name.
    pub fn title(self) -> String {
        match self {
            Self::Topic(name) => format!("topic {name}"),
            Self::Subscription(wanted) => format!("subscription {}", wanted.name),
        }
    }

    /// The command line that makes it.
    pub fn gcloud_line(self, project_id: &str) -> String {
        let wanted = match self {
            Self::Topic(name) => {
                return format!("gcloud pubsub topics create {name} --project={project_id}");
            }
            Self::Subscription(wanted) => wanted,
        };
        let mut line = format!(
            "gcloud pubsub subscriptions create {} --project={project_id} --topic={} \
             --ack-deadline={ACK_DEADLINE} --message-retention-duration={}s \
             --expiration-period=never --min-retry-delay={FIRST_BACKOFF}s \
             --max-retry-delay={LONGEST_BACKOFF}s",
            wanted.name, wanted.topic, wanted.kept_s
        );
        if wanted.gives_up {
            line.push_str(&format!(
                " --dead-letter-topic={SYNC_DEAD_LETTER} --max-delivery-attempts={MAX_DELIVERIES}"
            ));
        }
        if let Some(filter) = wanted.filter {
            line.push_str(&format!(" --message-filter='{filter}'"));
        }
        line
    }
}

/// How a topic or subscription is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// As it must be.
    Well,
    /// Not there.
    Missing,
    /// There, and not as it must be; the texts say how.
    Other(Vec<String>),
}

impl PubSub {
    /// Looks at one of them.
    pub async fn look(&self, resource: Resource) -> Result<Found, QueueError> {
        let title = resource.title();
        let found = match resource {
            Resource::Topic(name) => {
                let asked = self.topics.get_topic().set_topic(self.topic_path(name));
                within(&title, asked.send()).await?.map(|_| Found::Well)
            }
            Resource::Subscription(wanted) => {
                let path = self.subscription_path(wanted.name);
                let asked = self.subscriptions.get_subscription().set_subscription(path);
                let found = within(&title, asked.send()).await?;
                found.map(|found| self.compare(wanted, &found))
            }
        };
        match found {
            Ok(found) => Ok(found),
            Err(error) if code_of(&error) == Some(Code::NotFound) => Ok(Found::Missing),
            Err(error) => Err(queue_error(&title, &error)),
        }
    }

    /// Makes one of them. One that somebody else has made meanwhile is as good.
    pub async fn create(&self, resource: Resource) -> Result<(), QueueError> {
        let title = resource.title();
        let made = match resource {
            Resource::Topic(name) => {
                let asked = self.topics.create_topic().set_name(self.topic_path(name));
                within(&title, asked.send()).await?.map(drop)
            }
            Resource::Subscription(wanted) => {
                let asked = self
                    .subscriptions
                    .create_subscription()
                    .with_request(self.subscription(wanted));
                within(&title, asked.send()).await?.map(drop)
            }
        };
        match made {
            Ok(()) => Ok(()),
            Err(error) if code_of(&error) == Some(Code::AlreadyExists) => Ok(()),
            Err(error) => Err(queue_error(&title, &error)),
        }
    }

    fn subscription(&self, wanted: Wanted) -> model::Subscription {
        let seconds = |seconds| WireDuration::clamp(seconds, 0);
        let mut subscription = model::Subscription::new()
            .set_name(self.subscription_path(wanted.name))
            .set_topic(self.topic_path(wanted.topic))
            .set_ack_deadline_seconds(ACK_DEADLINE)
            .set_message_retention_duration(seconds(wanted.kept_s))
            // Without a time it never expires; by default a quiet month ends it.
            .set_expiration_policy(model::ExpirationPolicy::new())
            .set_retry_policy(
                model::RetryPolicy::new()
                    .set_minimum_backoff(seconds(FIRST_BACKOFF))
                    .set_maximum_backoff(seconds(LONGEST_BACKOFF)),
            )
            .set_filter(wanted.filter.unwrap_or_default());
        if wanted.gives_up {
            subscription = subscription.set_dead_letter_policy(
                model::DeadLetterPolicy::new()
                    .set_dead_letter_topic(self.topic_path(SYNC_DEAD_LETTER))
                    .set_max_delivery_attempts(MAX_DELIVERIES),
            );
        }
        subscription
    }

    /// What of a subscription would lose messages or keep them from their reader. Deadlines and
    /// delays are the operator's to choose.
    fn compare(&self, wanted: Wanted, found: &model::Subscription) -> Found {
        let mut differences = Vec::new();
        if found.topic != self.topic_path(wanted.topic) {
            differences.push(format!("it reads {}, not {}", found.topic, wanted.topic));
        }
        let filter = wanted.filter.unwrap_or_default();
        if !found.filter.is_empty() && found.filter != filter {
            differences.push(format!("its filter is {}", found.filter));
        }
        let expiration = found.expiration_policy.as_ref();
        if let Some(ttl) = expiration.and_then(|policy| policy.ttl.as_ref()) {
            let days = ttl.seconds() / (24 * 3600);
            differences.push(format!("it expires after {days} quiet days"));
        }
        if found
            .push_config
            .as_ref()
            .is_some_and(|push| !push.push_endpoint.is_empty())
        {
            differences.push("it pushes, and is to be pulled".to_owned());
        }
        let kept_s = found
            .message_retention_duration
            .map_or(wanted.kept_s, |kept| kept.seconds());
        if kept_s < wanted.kept_s {
            differences.push(format!(
                "it keeps what nobody takes for {kept_s} s, not {} s",
                wanted.kept_s
            ));
        }
        differences.extend(self.compare_dead_letters(wanted, found));
        if differences.is_empty() {
            Found::Well
        } else {
            Found::Other(differences)
        }
    }

    /// How messages that nobody can take leave a subscription.
    fn compare_dead_letters(&self, wanted: Wanted, found: &model::Subscription) -> Option<String> {
        let policy = found.dead_letter_policy.as_ref();
        if !wanted.gives_up {
            return policy.map(|policy| format!("it gives up into {}", policy.dead_letter_topic));
        }
        let Some(policy) = policy else {
            return Some(format!("it has no dead-letter topic {SYNC_DEAD_LETTER}"));
        };
        if policy.dead_letter_topic != self.topic_path(SYNC_DEAD_LETTER) {
            let other = &policy.dead_letter_topic;
            return Some(format!("it gives up into {other}, not {SYNC_DEAD_LETTER}"));
        }
        // The program's own count of failures is to come first.
        let deliveries = policy.max_delivery_attempts;
        (deliveries < MAX_DELIVERIES)
            .then(|| format!("it gives up after {deliveries} deliveries, not {MAX_DELIVERIES}"))
    }
}

fn code_of(error: &Error) -> Option<Code> {
    error.status().map(|status| status.code)
}

/// An answer in time.
async fn within<T>(
    what: &str,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<Result<T, Error>, QueueError> {
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
        QueueError::Unavailable(format!(
            "no answer about {what} in {} s",
            PATIENCE.as_secs()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::DNA_ANALYSIS_REQUESTED;

    #[test]
    fn the_lines_name_everything_that_is_made() {
        for wanted in SUBSCRIPTIONS {
            assert!(TOPICS.contains(&wanted.topic), "{wanted:?}");
        }
        assert!(DNA_ENGINE_FILTER.contains(DNA_ANALYSIS_REQUESTED));
        let line = Resource::Subscription(SUBSCRIPTIONS[1]).gcloud_line("a-project");
        assert_eq!(
            line,
            "gcloud pubsub subscriptions create nucleus-sync-worker --project=a-project \
             --topic=nucleus-sync-requests --ack-deadline=60 \
             --message-retention-duration=604800s --expiration-period=never \
             --min-retry-delay=10s --max-retry-delay=600s \
             --dead-letter-topic=nucleus-sync-dead-letter --max-delivery-attempts=20"
        );
    }
}
