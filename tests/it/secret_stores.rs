//! What every secret store has to do, asked of each: the vault, Secret Manager as a third party plays it,
//! and the double.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use nucleus::{
    domain::{EntityId, ServiceName, ids::Id},
    secrets::{
        Credentials, Labels, MAX_SECRET_BYTES, OAuth2Credentials, SecretBytes, SecretError,
        SecretManager, SecretName, SecretPath, SecretStore, Vault, VaultKey, gcp::Place,
    },
};
use secrecy::{ExposeSecret, SecretBox};

use crate::{
    backends::{new_project, secret_manager_url},
    doubles::secret_manager::SecretManagerDouble,
};

mod secret_manager;
mod whole_program;

/// What no log, error or print may hold.
const CANARY: &str = "1//canary-refresh-token-of-stores";

/// A store, and the names of one person's secrets in it.
struct Stand {
    what: &'static str,
    store: Arc<dyn SecretStore>,
    project: Option<String>,
    entity: EntityId,
}

/// A client of the Secret Manager at `url`.
async fn client(url: &str, project: &str, locations: &[&str]) -> SecretManager {
    let _ = rustls::crypto::ring::default_provider().install_default();
    SecretManager::new(Place {
        project_id: project.to_owned(),
        endpoint: Some(url.to_owned()),
        locations: locations.iter().map(|at| (*at).to_owned()).collect(),
    })
    .await
    .unwrap()
}

fn value(text: &str) -> SecretBytes {
    text.as_bytes().to_vec().into()
}

impl Stand {
    fn name(&self, service: ServiceName) -> SecretName {
        SecretName::new(self.entity, service)
    }

    async fn put(&self, service: ServiceName, text: &str) -> SecretPath {
        let labels = Labels {
            entity_id: self.entity,
            service,
        };
        let name = self.name(service);
        let stored = self.store.put(&name, value(text), &labels).await;
        stored.unwrap()
    }

    async fn get(&self, path: &SecretPath) -> Result<String, SecretError> {
        let bytes = self.store.get(path).await?;
        Ok(String::from_utf8(bytes.expose_secret().to_vec()).unwrap())
    }

    async fn live(&self, service: ServiceName) -> Vec<u64> {
        let paths = self.store.versions(&self.name(service)).await.unwrap();
        paths.iter().map(SecretPath::version).collect()
    }

    /// A path of this store.
    fn path(&self, service: ServiceName, version: u64) -> SecretPath {
        let local = format!("{}/versions/{version}", self.name(service));
        let text = match &self.project {
            Some(project) => format!("projects/{project}/secrets/{local}"),
            None => local,
        };
        text.parse().unwrap()
    }
}

/// Asks each of the stores the same.
async fn every_store(body: impl AsyncFn(&Stand)) {
    let folder = tempfile::tempdir().unwrap();
    let key = VaultKey::new(SecretBox::new(Box::new([7; 32])));
    let vault = Vault::open(folder.path().join("vault"), key).await.unwrap();
    let double = SecretManagerDouble::start().await;
    let mut stands = vec![("vault", Arc::new(vault) as Arc<dyn SecretStore>, None)];
    for (what, url) in [("drongo", secret_manager_url()), ("double", double.url)] {
        let project = new_project();
        let store = Arc::new(client(&url, &project, &[]).await);
        stands.push((what, store, Some(project)));
    }
    for (what, store, project) in stands {
        let stand = Stand {
            what,
            store,
            project,
            entity: Id::new(),
        };
        body(&stand).await;
    }
}

fn is_missing<T>(result: &Result<T, SecretError>) -> bool {
    matches!(result, Err(SecretError::Missing(_)))
}

use ServiceName::{Gmail, Notion, Slack};

#[tokio::test]
async fn every_version_keeps_its_own_value() {
    every_store(async |stand| {
        let what = stand.what;
        assert!(stand.live(Gmail).await.is_empty(), "{what}");
        let one = stand.put(Gmail, "one").await;
        let two = stand.put(Gmail, "two").await;
        let other = stand.put(Slack, "other").await;
        assert_eq!(one, stand.path(Gmail, 1), "{what}");
        assert_eq!(two, stand.path(Gmail, 2), "{what}");
        assert_eq!(other, stand.path(Slack, 1), "{what}");
        for (path, text) in [(&one, "one"), (&two, "two"), (&other, "other")] {
            assert_eq!(stand.get(path).await.unwrap(), text, "{what}");
        }
        for path in [stand.path(Gmail, 3), stand.path(Notion, 1)] {
            assert!(is_missing(&stand.get(&path).await), "{what}");
        }
        assert_eq!(stand.live(Gmail).await, [1, 2], "{what}");
    })
    .await;
}

#[tokio::test]
async fn credentials_go_in_and_come_out() {
    every_store(async |stand| {
        let credentials = Credentials::OAuth2(OAuth2Credentials {
            refresh_token: Some(CANARY.into()),
            scopes: vec!["mail".to_owned()],
            access_token: None,
            access_token_expires_at: None,
        });
        let sealed = credentials.seal().unwrap();
        let labels = Labels {
            entity_id: stand.entity,
            service: Gmail,
        };
        let name = stand.name(Gmail);
        let stored = stand.store.put(&name, sealed, &labels).await.unwrap();
        let bytes = stand.store.get(&stored).await.unwrap();
        let Credentials::OAuth2(opened) = Credentials::open(&bytes).unwrap() else {
            panic!("another kind came back");
        };
        assert_eq!(opened.refresh_token.unwrap().expose_secret(), CANARY);
        assert!(!format!("{bytes:?}").contains("canary"));
    })
    .await;
}

#[tokio::test]
async fn a_value_of_the_largest_size_fits_and_a_larger_one_does_not() {
    every_store(async |stand| {
        let largest = "x".repeat(MAX_SECRET_BYTES);
        let stored = stand.put(Gmail, &largest).await;
        assert_eq!(stand.get(&stored).await.unwrap(), largest);
        let labels = Labels {
            entity_id: stand.entity,
            service: Gmail,
        };
        let larger = value(&format!("{largest}x"));
        let refused = stand.store.put(&stand.name(Gmail), larger, &labels).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, SecretError::Rejected(_)), "{error:?}");
        assert!(error.to_string().contains("65536"), "{error}");
        assert_eq!(stand.live(Gmail).await, [1], "{}", stand.what);
    })
    .await;
}

#[tokio::test]
async fn a_destroyed_version_is_gone_and_its_number_is_not_used_again() {
    every_store(async |stand| {
        let what = stand.what;
        let one = stand.put(Gmail, "one").await;
        let two = stand.put(Gmail, "two").await;
        for _ in 0..2 {
            stand.store.destroy(&two).await.unwrap();
            assert!(is_missing(&stand.get(&two).await), "{what}");
            assert_eq!(stand.get(&one).await.unwrap(), "one", "{what}");
            assert_eq!(stand.live(Gmail).await, [1], "{what}");
        }
        let three = stand.put(Gmail, "three").await;
        assert_eq!(three.version(), 3, "{what}");
        // Neither a number that was never given nor a secret that never was is used up by it.
        for path in [stand.path(Gmail, 99), stand.path(Notion, 1)] {
            stand.store.destroy(&path).await.unwrap();
        }
        assert_eq!(stand.put(Gmail, "four").await.version(), 4, "{what}");
        assert_eq!(stand.live(Gmail).await, [1, 3, 4], "{what}");
    })
    .await;
}

#[tokio::test]
async fn a_removed_secret_is_gone_with_all_its_versions() {
    every_store(async |stand| {
        let one = stand.put(Gmail, "one").await;
        let two = stand.put(Gmail, "two").await;
        let other = stand.put(Slack, "other").await;
        for _ in 0..2 {
            stand.store.delete(&stand.name(Gmail)).await.unwrap();
            assert!(stand.live(Gmail).await.is_empty(), "{}", stand.what);
            for path in [&one, &two] {
                assert!(is_missing(&stand.get(path).await), "{}", stand.what);
            }
        }
        assert_eq!(stand.get(&other).await.unwrap(), "other");
    })
    .await;
}

#[tokio::test]
async fn paths_of_another_store_are_none_of_this_one_s() {
    every_store(async |stand| {
        let own = stand.put(Gmail, CANARY).await;
        let local = format!("{}/versions/1", stand.name(Gmail));
        let foreign = match &stand.project {
            Some(_) => local.clone(),
            None => format!("projects/another-project/secrets/{local}"),
        };
        for text in [
            foreign,
            format!("projects/one-more-project/secrets/{local}"),
        ] {
            let path: SecretPath = text.parse().unwrap();
            assert!(is_missing(&stand.get(&path).await), "{}", stand.what);
            let refused = stand.store.destroy(&path).await;
            assert!(is_missing(&refused), "{}", stand.what);
        }
        assert_eq!(stand.get(&own).await.unwrap(), CANARY);
    })
    .await;
}

#[tokio::test]
async fn puts_at_once_get_numbers_of_their_own() {
    every_store(async |stand| {
        // The secret is not there yet, so that all of them come to make it.
        let puts = (0..16).map(async |index| {
            let path = stand.put(Gmail, &format!("value {index}")).await;
            (index, path)
        });
        let stored = join_all(puts).await;
        let mut numbers = BTreeSet::new();
        for (index, path) in stored {
            let text = stand.get(&path).await.unwrap();
            assert_eq!(text, format!("value {index}"), "{}", stand.what);
            numbers.insert(path.version());
        }
        assert_eq!(numbers, BTreeSet::from_iter(1..=16), "{}", stand.what);
    })
    .await;
}
