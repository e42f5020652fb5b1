//! Google's Secret Manager: one secret an integration, one version a set of credentials.
//!
//! It has no compare-and-set on versions, so none is asked for here: who pins a version does so in its
//! row. Versions are always read by number, never as `latest`, and what is destroyed is named by number
//! too. Google answers with the project's number where it was given the project's id, so paths are made
//! of what was given: equal versions have equal texts. Every call has a deadline, and neither an error
//! nor a log line holds a payload.

mod refusal;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use crc::{CRC_32_ISCSI, Crc};
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::{
    error::rpc::Code,
    options::RequestOptionsBuilder,
    retry_policy::{Aip194Strict, RetryPolicyExt},
};
use google_cloud_secretmanager_v1::{
    Result as Answer,
    client::SecretManagerService,
    model::{
        Replication, Secret, SecretPayload,
        replication::{Automatic, UserManaged, user_managed::Replica},
        secret_version::State,
    },
};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{
    Labels, MAX_SECRET_BYTES, SecretBytes, SecretError, SecretName, SecretPath, SecretStore,
    parse_version,
};
use refusal::Refusal;
pub use refusal::mend;

/// One call, with what is tried again within it, takes no longer: a refresh, which makes two of them,
/// has its lease for 30 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// One attempt at a call takes no longer.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Nothing is tried again after so long, so that the last refusal is told and not only the deadline.
const RETRIES_END: Duration = Duration::from_secs(8);
/// A call is tried so often. Only what changed nothing is tried again: a refusal for want of quota, a
/// connection that was not made, and calls that do no harm when they come twice.
const ATTEMPTS: u32 = 4;
/// Versions on one page of a list. Destroyed ones are listed for ever.
const PAGE: i32 = 1_000;
/// The permission to list versions.
pub const LIST: &str = "secretmanager.versions.list";
/// The permission to read a version.
pub const ACCESS: &str = "secretmanager.versions.access";
/// The permission to add a version.
pub const ADD: &str = "secretmanager.versions.add";
/// The permission to destroy a version.
pub const DESTROY: &str = "secretmanager.versions.destroy";
/// What [`SecretManager::probe`] would add, if the secret were there.
const PROBE: &[u8] = b"probe";
/// CRC32C, as Google checks payloads by.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Where secrets are kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// The project's id.
    pub project_id: String,
    /// In place of Google's own endpoint. Over plain http no credentials are sent.
    pub endpoint: Option<String>,
    /// The regions that hold the copies of a secret; none leaves the choice to Google.
    pub locations: Vec<String>,
}

/// Why Secret Manager cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum SecretManagerError {
    /// The file that names the credentials, or the credentials, cannot be used.
    #[error("the client of Secret Manager cannot be made: {0}; {ADC}", ADC = refusal::NO_CREDENTIALS)]
    Client(String),
    /// The machine's metadata server did not answer.
    #[error(
        "the client of Secret Manager was not made within {} s: the metadata server does not answer",
        PATIENCE.as_secs()
    )]
    Slow,
}

/// Secret Manager of one project. Clones share their connections.
#[derive(Clone)]
pub struct SecretManager {
    client: SecretManagerService,
    place: Place,
}

/// A call that [`SecretManager::probe`] makes.
#[derive(Debug)]
pub struct Probed {
    /// The permission that it needs.
    pub permission: &'static str,
    /// Whether it may be made.
    pub result: Result<(), SecretError>,
}

impl SecretManager {
    /// Makes the client. The service is not called; the metadata server of a machine of Google's may
    /// be.
    pub async fn new(place: Place) -> Result<Self, SecretManagerError> {
        let retries = Aip194Strict
            .continue_on_too_many_requests()
            .with_attempt_limit(ATTEMPTS)
            .with_time_limit(RETRIES_END);
        let mut builder = SecretManagerService::builder()
            .with_retry_policy(retries)
            .with_attempt_timeout(ATTEMPT);
        if let Some(endpoint) = &place.endpoint {
            builder = builder.with_endpoint(endpoint);
            if endpoint.starts_with("http:") {
                builder = builder.with_credentials(anonymous::Builder::new().build());
            }
        }
        match tokio::time::timeout(PATIENCE, builder.build()).await {
            Ok(Ok(client)) => Ok(Self { client, place }),
            Ok(Err(error)) => Err(SecretManagerError::Client(refusal::causes(&error))),
            Err(_) => Err(SecretManagerError::Slow),
        }
    }

    /// The project of the secrets.
    pub fn project_id(&self) -> &str {
        &self.place.project_id
    }

    /// Makes each call that credentials in use need, on a secret that is not there, so that nothing
    /// changes: who may make the call is told that there is no such secret.
    pub async fn probe(&self, name: &SecretName) -> Vec<Probed> {
        let version = self.version_name(name, 1);
        let probe = PROBE.to_vec().into();
        let (list, access, add, destroy) = tokio::join!(
            asked("listing versions", self.page(name, String::new())),
            asked("reading a version", self.access(&version)),
            self.add_asked(name, &probe),
            asked("destroying a version", self.destroy_version(&version)),
        );
        let calls = [
            (LIST, list.map(drop)),
            (ACCESS, access.map(drop)),
            (ADD, add.map(drop)),
            (DESTROY, destroy),
        ];
        let probed = calls.into_iter().map(|(permission, answer)| Probed {
            permission,
            result: match answer {
                Err(refusal) if refusal.code != Code::NotFound => Err(refusal.into_error()),
                _ => Ok(()),
            },
        });
        probed.collect()
    }

    fn secret_name(&self, name: &SecretName) -> String {
        format!("projects/{}/secrets/{name}", self.place.project_id)
    }

    fn version_name(&self, name: &SecretName, version: u64) -> String {
        format!("{}/versions/{version}", self.secret_name(name))
    }

    /// The path of a version that Google calls `answered`.
    fn path(&self, name: &SecretName, answered: &str) -> Result<SecretPath, SecretError> {
        let number = answered.rsplit('/').next().and_then(parse_version);
        let unknown = || SecretError::Corrupt {
            what: format!("the answer about {name}"),
            reason: "it names no version".to_owned(),
        };
        Ok(self
            .version_name(name, number.ok_or_else(unknown)?)
            .parse()?)
    }

    /// A path of the vault or of another project is none of this store's.
    fn own<'p>(&self, path: &'p SecretPath) -> Result<&'p str, SecretError> {
        if path.project() != Some(&self.place.project_id) {
            return Err(SecretError::Missing(path.clone()));
        }
        Ok(path.as_str())
    }

    async fn create(&self, name: &SecretName, labels: &Labels) -> Answer<()> {
        let replication = match self.place.locations.as_slice() {
            [] => Replication::new().set_automatic(Automatic::new()),
            locations => {
                let replicas = locations.iter().map(|at| Replica::new().set_location(at));
                Replication::new().set_user_managed(UserManaged::new().set_replicas(replicas))
            }
        };
        let secret = Secret::new()
            .set_replication(replication)
            .set_labels(BTreeMap::from(labels.pairs()));
        let call = self
            .client
            .create_secret()
            .set_parent(format!("projects/{}", self.place.project_id))
            .set_secret_id(name.as_str())
            .set_secret(secret);
        // A second one finds the first.
        call.with_idempotency(true).send().await.map(drop)
    }

    async fn add(&self, name: &SecretName, value: &SecretBytes) -> Answer<String> {
        let checksum = CHECKSUM.checksum(value.expose_secret());
        // Wiped when the request is written; what the client makes of it is out of reach.
        let data = Zeroizing::new(value.expose_secret().to_vec());
        let payload = SecretPayload::new()
            .set_data(Bytes::from_owner(data))
            .set_data_crc32c(i64::from(checksum));
        let call = self
            .client
            .add_secret_version()
            .set_parent(self.secret_name(name))
            .set_payload(payload);
        call.send().await.map(|version| version.name)
    }

    async fn add_asked(&self, name: &SecretName, value: &SecretBytes) -> Result<String, Refusal> {
        let added = asked("adding a version", self.add(name, value)).await;
        added.map_err(Refusal::unquoted)
    }

    /// The value, and the checksum that came with it.
    async fn access(&self, version: &str) -> Answer<(Zeroizing<Vec<u8>>, Option<i64>)> {
        let call = self.client.access_secret_version().set_name(version);
        // Moved out at once: the answer's own type prints what it holds.
        let payload = call.send().await?.payload.unwrap_or_default();
        Ok((Zeroizing::new(Vec::from(payload.data)), payload.data_crc32c))
    }

    async fn destroy_version(&self, version: &str) -> Answer<()> {
        let call = self.client.destroy_secret_version().set_name(version);
        call.with_idempotency(true).send().await.map(drop)
    }

    /// A page of names of live versions, and the token of the next page, which is empty at the end.
    async fn page(&self, name: &SecretName, token: String) -> Answer<(Vec<String>, String)> {
        let call = self
            .client
            .list_secret_versions()
            .set_parent(self.secret_name(name))
            .set_page_size(PAGE)
            .set_page_token(token);
        let page = call.send().await?;
        let live = page
            .versions
            .into_iter()
            // One that somebody has disabled still holds its payload.
            .filter(|version| version.state != State::Destroyed)
            .map(|version| version.name);
        Ok((live.collect(), page.next_page_token))
    }

    /// What is behind a refusal that says only that the version is not in a state for that.
    async fn state(&self, version: &str) -> Result<State, Refusal> {
        let call = self.client.get_secret_version().set_name(version);
        let found = asked("looking at a version", call.send()).await?;
        Ok(found.state)
    }
}

#[async_trait]
impl SecretStore for SecretManager {
    async fn put(
        &self,
        name: &SecretName,
        value: SecretBytes,
        labels: &Labels,
    ) -> Result<SecretPath, SecretError> {
        let length = value.expose_secret().len();
        if length > MAX_SECRET_BYTES {
            return Err(SecretError::too_long(length));
        }
        // Most puts are to a secret that is there, and creating one takes a permission of its own.
        let added = match self.add_asked(name, &value).await {
            Err(refusal) if refusal.code == Code::NotFound => {
                match asked("creating a secret", self.create(name, labels)).await {
                    Err(refusal) if refusal.code != Code::AlreadyExists => {
                        return Err(refusal.into_error());
                    }
                    _ => {}
                }
                self.add_asked(name, &value).await
            }
            added => added,
        };
        self.path(name, &added.map_err(Refusal::into_error)?)
    }

    /// A checksum that does not fit may have been spoilt on the way, so that the version is read once
    /// more; one that is absent is accepted.
    async fn get(&self, path: &SecretPath) -> Result<SecretBytes, SecretError> {
        let version = self.own(path)?;
        for _ in 0..2 {
            let (data, checksum) = match asked("reading a version", self.access(version)).await {
                Ok(read) => read,
                Err(refusal) if refusal.code == Code::NotFound => {
                    return Err(SecretError::Missing(path.clone()));
                }
                Err(refusal) if refusal.code == Code::FailedPrecondition => {
                    return match self.state(version).await {
                        Ok(State::Disabled) => Err(refusal.into_error()),
                        Err(other) if other.code != Code::NotFound => Err(other.into_error()),
                        _ => Err(SecretError::Missing(path.clone())),
                    };
                }
                Err(refusal) => return Err(refusal.into_error()),
            };
            let is_as_sent = |sent: i64| sent == i64::from(CHECKSUM.checksum(&data));
            if checksum.is_none_or(is_as_sent) {
                // Of exactly this length: what is shortened later leaves a copy behind.
                return Ok(SecretBytes::from(data.to_vec()));
            }
        }
        Err(SecretError::Corrupt {
            what: path.to_string(),
            reason: "its checksum does not fit, twice".to_owned(),
        })
    }

    async fn destroy(&self, path: &SecretPath) -> Result<(), SecretError> {
        let version = self.own(path)?;
        match asked("destroying a version", self.destroy_version(version)).await {
            Ok(()) => Ok(()),
            Err(refusal) if refusal.code == Code::NotFound => Ok(()),
            Err(refusal) if refusal.code == Code::FailedPrecondition => {
                match self.state(version).await {
                    Ok(State::Destroyed) => Ok(()),
                    _ => Err(refusal.into_error()),
                }
            }
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    async fn versions(&self, name: &SecretName) -> Result<Vec<SecretPath>, SecretError> {
        let mut paths = Vec::new();
        let mut token = String::new();
        loop {
            let (page, next) = match asked("listing versions", self.page(name, token)).await {
                Ok(page) => page,
                Err(refusal) if refusal.code == Code::NotFound => break,
                Err(refusal) => return Err(refusal.into_error()),
            };
            for answered in page {
                paths.push(self.path(name, &answered)?);
            }
            if next.is_empty() {
                break;
            }
            token = next;
        }
        paths.sort_unstable_by_key(SecretPath::version);
        Ok(paths)
    }

    async fn delete(&self, name: &SecretName) -> Result<(), SecretError> {
        let call = self.client.delete_secret().set_name(self.secret_name(name));
        match asked("deleting a secret", call.send()).await {
            Err(refusal) if refusal.code != Code::NotFound => Err(refusal.into_error()),
            _ => Ok(()),
        }
    }
}

/// What the service answers in time.
async fn asked<T>(
    doing: &'static str,
    call: impl Future<Output = Answer<T>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| Refusal::of(doing, &error)),
        Err(_) => Err(Refusal::too_slow(doing, PATIENCE)),
    }
}
