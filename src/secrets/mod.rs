//! Where credentials live: the [`SecretStore`] trait, the names of secrets and why a store says no.
//!
//! A secret has versions. A version never changes, and rows keep its [`SecretPath`], so nobody ever
//! asks for "the latest". Values enter and leave as redacting types; this module knows no database,
//! no configuration and no provider.

pub mod cipher;
pub mod credentials;
mod files;
pub mod gcp;
pub mod key;
mod opening;
mod rotation;
#[cfg(test)]
mod rotation_tests;
pub mod vault;
#[cfg(test)]
mod vault_tests;

use std::{error::Error, fmt, str::FromStr};

use async_trait::async_trait;
use secrecy::SecretSlice;

use crate::domain::{EntityId, ServiceName};

pub use cipher::KeyId;
pub use credentials::{Credentials, OAuth2Credentials};
pub use gcp::{SecretManager, SecretManagerError};
pub use key::{Keys, VaultKey};
pub use opening::VaultError;
pub use rotation::Rotated;
pub use vault::Vault;

/// What a secret version holds: bytes that are wiped when dropped and never printed.
pub type SecretBytes = SecretSlice<u8>;

/// The largest value in bytes, so that whatever one store takes every other takes too.
///
/// Source: <https://cloud.google.com/secret-manager/quotas>, the maximum size of a payload.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// The longest name and the longest path in characters: `secret_path` is varchar(255).
const MAX_TEXT: usize = 255;

/// Keeps secrets by name and version.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Adds a version with `value`, of at most [`MAX_SECRET_BYTES`], and says its pinned path. After
    /// an error, or when dropped on the way, the version may be there all the same: see
    /// [`SecretStore::versions`].
    async fn put(
        &self,
        name: &SecretName,
        value: SecretBytes,
        labels: &Labels,
    ) -> Result<SecretPath, SecretError>;

    /// The value of one version.
    async fn get(&self, path: &SecretPath) -> Result<SecretBytes, SecretError>;

    /// Destroys one version for good. A version that is not there counts as destroyed.
    async fn destroy(&self, path: &SecretPath) -> Result<(), SecretError>;

    /// The live versions of a secret, oldest first; none where there never was such a secret.
    async fn versions(&self, name: &SecretName) -> Result<Vec<SecretPath>, SecretError>;

    /// Removes a secret with all its versions. Only for a name that nobody will write again: numbers of
    /// versions may start again after it, and whoever was slow would destroy another's.
    async fn delete(&self, name: &SecretName) -> Result<(), SecretError>;
}

/// Why a store says no; each variant is a decision for the caller.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such version: read the row again, and if it still names this path, the account has to be
    /// connected again.
    #[error("no secret version {0}")]
    Missing(SecretPath),
    /// The store does not let this process in; the operator has to act.
    #[error("the secret store denied access while {doing}")]
    Denied {
        /// What was being done.
        doing: String,
        /// What the store answered.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Too much was asked of the store; it works again when its minute is over.
    #[error("the secret store's quota was used up while {doing}")]
    Exhausted {
        /// What was being done.
        doing: String,
        /// What the store answered.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It may work later.
    #[error("the secret store failed while {doing}")]
    Unavailable {
        /// What was being done.
        doing: String,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is stored is not what was put there; trying again does not help.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// The path of the version, or `credentials`.
        what: String,
        /// What is wrong with it; holds no part of the value.
        reason: String,
    },
    /// The version was sealed with a key that this process does not hold; the operator has to act.
    #[error("{what} was sealed with key {sealed_with}, held is {}", list_keys(.held))]
    WrongKey {
        /// The path of the version.
        what: String,
        /// The key it was sealed with.
        sealed_with: KeyId,
        /// The keys of this process.
        held: Vec<KeyId>,
    },
    /// The value or its name cannot be stored, here or anywhere.
    #[error("the secret cannot be stored: {0}")]
    Rejected(String),
}

impl SecretError {
    /// Of a value that has `length` bytes, and so too many.
    fn too_long(length: usize) -> Self {
        Self::Rejected(format!(
            "it has {length} bytes, {MAX_SECRET_BYTES} are allowed"
        ))
    }

    /// What may be told outside: not where the secret lies, nor what the store said.
    pub fn outline(&self) -> &'static str {
        match self {
            Self::Missing(_) => "they are missing",
            Self::Denied { .. } => "the secret store denied access",
            Self::Exhausted { .. } => "the secret store's quota is used up",
            Self::Unavailable { .. } => "the secret store failed",
            Self::Corrupt { .. } => "they are damaged",
            Self::WrongKey { .. } => "they were sealed with another key",
            Self::Rejected(_) => "the secret store does not take them",
        }
    }
}

fn list_keys(ids: &[KeyId]) -> String {
    let texts: Vec<String> = ids.iter().map(KeyId::to_string).collect();
    texts.join(", ")
}

/// What a store notes beside a secret, for people who look into it: not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// Whose account.
    pub entity_id: EntityId,
    /// At which service.
    pub service: ServiceName,
}

impl Labels {
    /// Labels as keys and values; within the rules of Secret Manager (lower case, at most 63
    /// characters each).
    pub fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("entity_id", self.entity_id.to_string()),
            ("service", self.service.to_string()),
            ("managed_by", "nucleus".to_owned()),
        ]
    }
}

/// A text that is no name or no path of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidSecretText {
    text: String,
    expected: &'static str,
}

impl From<InvalidSecretText> for SecretError {
    fn from(error: InvalidSecretText) -> Self {
        Self::Corrupt {
            what: "secret_path".to_owned(),
            reason: error.to_string(),
        }
    }
}

/// The name of a secret: 1 to 255 characters of `[a-zA-Z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// `nucleus-credentials-{entity_id}-{service_name}`.
    pub fn new(entity_id: EntityId, service: ServiceName) -> Self {
        Self(format!("nucleus-credentials-{entity_id}-{service}"))
    }

    /// Whose credentials have this name, if it is one of [`SecretName::new`].
    pub fn entity_id(&self) -> Option<EntityId> {
        let rest = self.0.strip_prefix("nucleus-credentials-")?;
        rest.get(..36)?.parse().ok()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = InvalidSecretText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(plain) {
            return Err(InvalidSecretText {
                text: text.to_owned(),
                expected: "the name of a secret: 1 to 255 letters, digits, - and _",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// One version of one secret: `{name}/versions/{number}`, behind `projects/{project}/secrets/` where
/// it lies in Secret Manager; at most 255 characters.
///
/// Equal versions have equal texts, so rows may be compared by the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretPath {
    text: String,
    name: SecretName,
    version: u64,
}

impl SecretPath {
    /// The path of a version in a store that has no projects.
    pub fn new(name: &SecretName, version: u64) -> Result<Self, InvalidSecretText> {
        format!("{name}/versions/{version}").parse()
    }

    /// The path as text, as rows keep it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The secret's name.
    pub fn name(&self) -> &SecretName {
        &self.name
    }

    /// The version's number, from 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The project of Secret Manager, none in a vault.
    pub fn project(&self) -> Option<&str> {
        self.text.strip_prefix("projects/")?.split('/').next()
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SecretPath {
    type Err = InvalidSecretText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSecretText {
            text: text.to_owned(),
            expected: "the path of a secret version",
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (name, number) = match parts.as_slice() {
            [name, "versions", number] => (name, number),
            ["projects", project, "secrets", name, "versions", number] if is_project(project) => {
                (name, number)
            }
            _ => return Err(invalid()),
        };
        let name: SecretName = name.parse().map_err(|_| invalid())?;
        let version = parse_version(number).ok_or_else(invalid)?;
        if text.len() > MAX_TEXT {
            return Err(invalid());
        }
        Ok(Self {
            text: text.to_owned(),
            name,
            version,
        })
    }
}

/// A project's id (`my-project`, `example.com:my-project`) or its number.
fn is_project(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// A number from 1 as it is written, without `+` and leading zeros: one text for each version.
fn parse_version(text: &str) -> Option<u64> {
    let version: u64 = text.parse().ok()?;
    (version > 0 && version.to_string() == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_account_at_which_service() {
        let entity_id: EntityId = "018f0000-0000-7000-8000-000000000001".parse().unwrap();
        let name = SecretName::new(entity_id, ServiceName::GoogleCalendar);
        assert_eq!(
            name.as_str(),
            "nucleus-credentials-018f0000-0000-7000-8000-000000000001-google_calendar"
        );
        assert_eq!(name.entity_id(), Some(entity_id));
        assert_eq!(
            "some-secret".parse::<SecretName>().unwrap().entity_id(),
            None
        );
    }

    #[test]
    fn every_name_that_is_made_reads_back_and_fits_with_its_version() {
        for service in ServiceName::ALL {
            let name = SecretName::new(EntityId::new(), service);
            assert_eq!(name.as_str().parse::<SecretName>().unwrap(), name);
            SecretPath::new(&name, u64::MAX).unwrap();
        }
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "a.b",
            "a b",
            "ä",
            "a\0",
            long.as_str(),
        ] {
            assert!(text.parse::<SecretName>().is_err(), "{text:?}");
        }
        assert!("a".repeat(255).parse::<SecretName>().is_ok());
    }

    #[test]
    fn paths_read_back_as_written() {
        let path: SecretPath = "some-secret/versions/12".parse().unwrap();
        assert_eq!(path.to_string(), "some-secret/versions/12");
        assert_eq!(path.name().as_str(), "some-secret");
        assert_eq!((path.version(), path.project()), (12, None));
        assert_eq!(SecretPath::new(path.name(), 12).unwrap(), path);

        let text = "projects/example.com:home/secrets/some-secret/versions/3";
        let path: SecretPath = text.parse().unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(path.name().as_str(), "some-secret");
        assert_eq!(
            (path.version(), path.project()),
            (3, Some("example.com:home"))
        );
    }

    #[test]
    fn paths_without_one_pinned_version_are_refused() {
        for text in [
            "",
            "a",
            "a/versions/",
            "a/versions/latest",
            "a/versions/0",
            "a/versions/01",
            "a/versions/+1",
            "a/versions/1/",
            "a/versions/18446744073709551616",
            "/versions/1",
            "../versions/1",
            "projects//secrets/a/versions/1",
            "projects/p/secrets/../versions/1",
        ] {
            assert!(text.parse::<SecretPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_longer_than_its_column_is_refused() {
        let fits: SecretName = "a".repeat(255 - "/versions/1".len()).parse().unwrap();
        assert_eq!(SecretPath::new(&fits, 1).unwrap().as_str().len(), 255);
        assert!(SecretPath::new(&fits, 10).is_err());
    }

    #[test]
    fn labels_keep_the_rules_of_secret_manager() {
        for service in ServiceName::ALL {
            let labels = Labels {
                entity_id: EntityId::new(),
                service,
            };
            for (key, value) in labels.pairs() {
                for text in [key, value.as_str()] {
                    let allowed =
                        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
                    assert!(text.len() <= 63 && text.chars().all(allowed), "{text}");
                }
            }
        }
    }
}
