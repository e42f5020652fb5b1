//! Secret Manager when it is not as one would wish: what is asked of it, and what its refusals, its
//! silence and its mistakes come to.

use std::{error::Error, time::Duration};

use nucleus::{
    domain::{EntityId, ServiceName, errors, ids::Id},
    secrets::{
        Labels, SecretBytes, SecretError, SecretManager, SecretName, SecretPath, SecretStore,
    },
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{CANARY, client, value};
use crate::doubles::secret_manager::{Call, Fault, PROJECT_NUMBER, SecretManagerDouble};

const PROJECT: &str = "a-project-of-tests";
/// A call that is not answered is given up by then, with some room for a machine with much to do.
const GIVEN_UP: Duration = Duration::from_secs(14);

struct Stand {
    double: SecretManagerDouble,
    store: SecretManager,
    labels: Labels,
    name: SecretName,
}

impl Stand {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(locations: &[&str]) -> Self {
        let double = SecretManagerDouble::start().await;
        let store = client(&double.url, PROJECT, locations).await;
        let entity_id: EntityId = Id::new();
        let service = ServiceName::GoogleCalendar;
        Self {
            double,
            store,
            labels: Labels { entity_id, service },
            name: SecretName::new(entity_id, service),
        }
    }

    async fn put(&self, text: &str) -> Result<SecretPath, SecretError> {
        self.store.put(&self.name, value(text), &self.labels).await
    }

    async fn get(&self, path: &SecretPath) -> Result<String, SecretError> {
        let bytes: SecretBytes = self.store.get(path).await?;
        Ok(String::from_utf8(bytes.expose_secret().to_vec()).unwrap())
    }

    async fn live(&self) -> Vec<u64> {
        let paths = self.store.versions(&self.name).await.unwrap();
        paths.iter().map(SecretPath::version).collect()
    }
}

/// Fails unless the error says all of this, and nothing of a secret.
fn assert_says(error: &SecretError, words: &[&str]) {
    let text = errors::chain(error);
    for word in words {
        assert!(text.contains(word), "lacks {word:?}: {text}");
    }
    let mut shown = format!("{error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        shown += &format!("{cause:?}");
        source = cause.source();
    }
    // As it is, and in base64.
    for secret in ["canary", "Y2FuYXJ5"] {
        assert!(!text.contains(secret) && !shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_secret_is_made_once_with_its_labels_and_where_it_is_to_lie() {
    let stand = Stand::new().await;
    stand.put("one").await.unwrap();
    stand.put("two").await.unwrap();
    let secrets = stand.double.secrets();
    let made_of = &secrets[stand.name.as_str()].made_of;
    let labels = json!({
        "entity_id": stand.labels.entity_id.to_string(),
        "service": "google_calendar",
        "managed_by": "nucleus",
    });
    assert_eq!(made_of["labels"], labels);
    assert_eq!(made_of["replication"], json!({"automatic": {}}));
    // The first one finds no secret; nothing is made twice, and nothing is asked beforehand.
    let count = |call| stand.double.count(call);
    assert_eq!((count(Call::Create), count(Call::Add)), (1, 3));
    assert_eq!(stand.double.calls().len(), 4);

    let placed = Stand::with(&["europe-west1", "europe-west4"]).await;
    placed.put("one").await.unwrap();
    let secrets = placed.double.secrets();
    let replicas = json!([{"location": "europe-west1"}, {"location": "europe-west4"}]);
    assert_eq!(
        secrets[placed.name.as_str()].made_of["replication"],
        json!({"userManaged": {"replicas": replicas}})
    );
}

#[tokio::test]
async fn paths_are_made_of_the_project_s_id_although_google_answers_with_its_number() {
    let stand = Stand::new().await;
    let put = stand.put("one").await.unwrap();
    let expected = format!("projects/{PROJECT}/secrets/{}/versions/1", stand.name);
    assert_eq!(put.as_str(), expected);
    assert_eq!(stand.store.versions(&stand.name).await.unwrap(), [put]);
    assert!(!expected.contains(PROJECT_NUMBER));
}

#[tokio::test]
async fn what_is_read_is_the_pinned_version_and_never_the_latest() {
    let stand = Stand::new().await;
    for text in ["one", "two", "three"] {
        let path = stand.put(text).await.unwrap();
        // `latest` is still the first one.
        assert_eq!(stand.get(&path).await.unwrap(), text);
    }
    let calls = stand.double.calls();
    assert!(calls.iter().all(|(_, path)| !path.contains("latest")));
}

#[tokio::test]
async fn versions_are_listed_page_by_page_without_the_destroyed_ones() {
    let stand = Stand::new().await;
    let mut paths = Vec::new();
    for number in 1..=8 {
        paths.push(stand.put(&format!("value {number}")).await.unwrap());
    }
    for path in [&paths[0], &paths[4], &paths[7]] {
        stand.store.destroy(path).await.unwrap();
    }
    stand.double.change(|secrets| {
        let secret = secrets.get_mut(stand.name.as_str()).unwrap();
        secret.versions[2].state = "DISABLED";
    });
    // A disabled one still holds its payload.
    assert_eq!(stand.live().await, [2, 3, 4, 6, 7]);
    assert_eq!(stand.double.count(Call::List), 3);
    let error = stand.get(&paths[2]).await.unwrap_err();
    assert!(matches!(error, SecretError::Denied { .. }), "{error:?}");
    assert_says(&error, &["DISABLED", "disabled the version"]);
}

#[tokio::test]
async fn a_checksum_that_does_not_fit_is_read_once_more_and_then_refused() {
    let stand = Stand::new().await;
    let path = stand.put(CANARY).await.unwrap();
    stand.double.inject(Call::Access, Fault::WrongChecksum, 1);
    assert_eq!(stand.get(&path).await.unwrap(), CANARY);
    assert_eq!(stand.double.count(Call::Access), 2);
    stand.double.inject(Call::Access, Fault::WrongChecksum, 2);
    let error = stand.get(&path).await.unwrap_err();
    assert!(matches!(error, SecretError::Corrupt { .. }), "{error:?}");
    assert_says(&error, &["checksum", path.as_str()]);
    assert_eq!(stand.double.count(Call::Access), 4);
    // One that is absent cannot be checked.
    stand.double.inject(Call::Access, Fault::NoChecksum, 1);
    assert_eq!(stand.get(&path).await.unwrap(), CANARY);
    // What was changed where it lies comes with the checksum of what was changed: nobody can tell.
    stand.double.change(|secrets| {
        let secret = secrets.get_mut(stand.name.as_str()).unwrap();
        secret.versions[0].data.reverse();
    });
    assert!(stand.get(&path).await.is_ok());
}

#[tokio::test]
async fn each_refusal_is_told_apart_and_says_how_it_is_mended() {
    let denied: fn(&SecretError) -> bool = |error| matches!(error, SecretError::Denied { .. });
    let unavailable: fn(&SecretError) -> bool =
        |error| matches!(error, SecretError::Unavailable { .. });
    let refuse = Fault::Refuse;
    let stand = Stand::new().await;
    let path = stand.put(CANARY).await.unwrap();
    for (fault, is_it, words) in [
        (
            refuse(403, "PERMISSION_DENIED"),
            denied,
            ["PERMISSION_DENIED", "docs/secret-manager.md"],
        ),
        (
            Fault::NotEnabled,
            denied,
            ["PERMISSION_DENIED", "gcloud services enable"],
        ),
        (
            refuse(401, "UNAUTHENTICATED"),
            denied,
            ["UNAUTHENTICATED", "application-default login"],
        ),
        (
            refuse(400, "INVALID_ARGUMENT"),
            denied,
            ["INVALID_ARGUMENT", "REPLICATION"],
        ),
        (
            refuse(500, "INTERNAL"),
            unavailable,
            ["INTERNAL", "tried again"],
        ),
        (
            Fault::Page(500),
            unavailable,
            ["status 500", "NUCLEUS_SECRETS__ENDPOINT"],
        ),
        (
            Fault::Garbage,
            unavailable,
            ["not understood", "tried again"],
        ),
    ] {
        for call in [
            Call::Add,
            Call::Access,
            Call::List,
            Call::Destroy,
            Call::Delete,
        ] {
            stand.double.inject(call, fault.clone(), 1);
            let result = match call {
                Call::Add => stand.put(CANARY).await.map(drop),
                Call::Access => stand.get(&path).await.map(drop),
                Call::List => stand.store.versions(&stand.name).await.map(drop),
                Call::Destroy => stand.store.destroy(&path).await,
                _ => stand.store.delete(&stand.name).await,
            };
            stand.double.mend();
            // An answer to these is not looked at closely, or says nothing.
            if matches!(fault, Fault::Garbage) && call != Call::Access {
                continue;
            }
            let error = result.unwrap_err();
            assert!(is_it(&error), "{call:?} {fault:?}: {error:?}");
            assert_says(&error, &words);
        }
    }
    // The secret went with a call that was answered by garbage.
    assert!(matches!(
        stand.get(&path).await,
        Err(SecretError::Missing(_))
    ));
    stand
        .double
        .inject(Call::Create, refuse(400, "FAILED_PRECONDITION"), 1);
    let error = stand.put(CANARY).await.unwrap_err();
    assert!(denied(&error), "{error:?}");
    assert_says(&error, &["creating a secret", "policies"]);
}

#[tokio::test]
async fn an_error_that_repeats_a_payload_is_not_repeated() {
    let stand = Stand::new().await;
    stand.double.inject(Call::Add, Fault::Echo, 1);
    let error = stand.put(CANARY).await.unwrap_err();
    assert!(matches!(error, SecretError::Denied { .. }), "{error:?}");
    assert_says(&error, &["INVALID_ARGUMENT"]);
    stand.double.inject(Call::Add, Fault::Page(503), 1);
    assert_says(&stand.put(CANARY).await.unwrap_err(), &["status 503"]);
}

#[tokio::test]
async fn a_quota_that_is_used_up_for_a_moment_costs_a_moment_and_nothing_is_added_twice() {
    let stand = Stand::new().await;
    let quota = Fault::Refuse(429, "RESOURCE_EXHAUSTED");
    for call in [Call::Add, Call::Create, Call::Access] {
        stand.double.inject(call, quota.clone(), 1);
    }
    let path = stand.put("one").await.unwrap();
    assert_eq!(stand.get(&path).await.unwrap(), "one");
    assert_eq!(stand.live().await, [1]);

    // One that stays is told as what it is.
    stand.double.inject(Call::Add, quota, 100);
    let error = stand.put(CANARY).await.unwrap_err();
    assert!(matches!(error, SecretError::Exhausted { .. }), "{error:?}");
    assert_says(&error, &["quota", "RESOURCE_EXHAUSTED", "ask for more"]);
    stand.double.mend();
    assert_eq!(stand.live().await, [1]);
}

#[tokio::test]
async fn an_outage_of_a_moment_is_bridged_where_nothing_can_come_twice() {
    let stand = Stand::new().await;
    let path = stand.put("one").await.unwrap();
    let outage = Fault::Refuse(503, "UNAVAILABLE");
    for call in [Call::Access, Call::List, Call::Destroy, Call::Delete] {
        stand.double.inject(call, outage.clone(), 1);
    }
    assert_eq!(stand.get(&path).await.unwrap(), "one");
    assert_eq!(stand.live().await, [1]);

    // What was added and not answered is there, and is not added again: who announced it finds it.
    let before = stand.double.count(Call::Add);
    stand.double.inject(Call::Add, Fault::Lost, 1);
    let error = stand.put(CANARY).await.unwrap_err();
    assert!(
        matches!(error, SecretError::Unavailable { .. }),
        "{error:?}"
    );
    assert_eq!(stand.double.count(Call::Add), before + 1);
    assert_eq!(stand.live().await, [1, 2]);

    // Destroyed and not answered is destroyed.
    stand.double.inject(Call::Destroy, Fault::Lost, 1);
    stand.store.destroy(&path).await.unwrap();
    assert_eq!(stand.live().await, [2]);
    stand.store.delete(&stand.name).await.unwrap();
    assert!(stand.double.secrets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_is_given_up_in_time() {
    let stand = Stand::new().await;
    let path = stand.put("one").await.unwrap();
    for call in [Call::Add, Call::Access, Call::List, Call::Destroy] {
        stand.double.inject(call, Fault::Hang, 10);
    }
    let timed = async {
        tokio::join!(
            stand.put(CANARY),
            stand.get(&path),
            stand.store.versions(&stand.name),
            stand.store.destroy(&path),
        )
    };
    let (put, got, listed, destroyed) = tokio::time::timeout(GIVEN_UP, timed).await.unwrap();
    for error in [
        put.unwrap_err(),
        got.unwrap_err(),
        listed.unwrap_err(),
        destroyed.unwrap_err(),
    ] {
        assert!(
            matches!(error, SecretError::Unavailable { .. }),
            "{error:?}"
        );
        assert_says(&error, &["no answer", "look at the network"]);
    }
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_told_as_that() {
    let store = client("http://127.0.0.1:9", PROJECT, &[]).await;
    let name = SecretName::new(Id::new(), ServiceName::Gmail);
    let error = store.versions(&name).await.unwrap_err();
    assert!(
        matches!(error, SecretError::Unavailable { .. }),
        "{error:?}"
    );
    assert_says(&error, &["Connection refused", "NUCLEUS_SECRETS__ENDPOINT"]);
}
