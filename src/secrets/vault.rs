//! The embedded secret store: a folder of sealed files, one a secret version.
//!
//! ```text
//! vault/                    0700
//!   vault.lock              held by whoever changes anything, across processes
//!   key.check               a sealed nothing: tells a wrong key when the vault is opened
//!   {name}/                 0700, one a secret; stays when the secret is deleted
//!     3                     0600, version 3, in the format of the module `cipher`
//!     2.destroyed           empty: numbers up to this one are used up
//!     .tmp-…                being written, or left by a process that died
//! ```
//!
//! A version is written to a temporary file, synced, and moved to its number, which fails where the
//! number is taken. A destroyed version is unlinked, not overwritten: it is sealed. Whoever can bring
//! a version's own old file back under its own number is not detected; rows never name such a
//! version again. Nothing here is cached and no plain text ever reaches a file.

use std::{
    collections::BTreeSet,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::{
    KeyId, Labels, MAX_SECRET_BYTES, SecretBytes, SecretError, SecretName, SecretPath, SecretStore,
    VaultError, VaultKey,
    cipher::{self, CipherError},
    files, opening, parse_version,
};

/// A name with a dot is never that of a secret.
pub(super) const LOCK_FILE: &str = "vault.lock";
const DESTROYED_SUFFIX: &str = ".destroyed";
/// What [`Vault::probe`] seals, and under which name, as version 0, which no secret has.
const PROBE: &str = "probe";

/// How often the next number is tried. A number is taken between two looks only on a file system
/// whose locks do not work.
const NUMBER_ATTEMPTS: u32 = 100;

/// A vault that is open. Clones are the same vault; other processes may have it open too.
#[derive(Debug, Clone)]
pub struct Vault {
    pub(super) inner: Arc<Inner>,
}

/// What the blocking work of a vault needs.
#[derive(Debug)]
pub(super) struct Inner {
    folder: PathBuf,
    /// The first one seals, all of them open.
    keys: Vec<VaultKey>,
}

impl Vault {
    /// Opens the vault in `folder`, which is made where it is missing. Finds a wrong key, and removes
    /// what processes that died left half written.
    pub async fn open(folder: PathBuf, key: VaultKey) -> Result<Self, VaultError> {
        blocking_start(move || Self::prepared(folder, key)).await
    }

    /// Opens the vault with the key in `key_file`, which `serve` and `work` expect to find.
    pub async fn open_with_key_file(
        folder: PathBuf,
        key_file: PathBuf,
    ) -> Result<Self, VaultError> {
        blocking_start(move || {
            let key = opening::find_key(&folder, &key_file)?;
            Self::prepared(folder, key)
        })
        .await
    }

    /// Opens the vault with the key in `key_file`; at the first start, where there are neither a key
    /// nor a vault, makes both. Says whether the key is new, so that its place can be shown.
    pub async fn open_or_create(
        folder: PathBuf,
        key_file: PathBuf,
    ) -> Result<(Self, bool), VaultError> {
        blocking_start(move || {
            let (key, is_new) = match opening::find_key(&folder, &key_file) {
                Ok(key) => (key, false),
                Err(VaultError::NoKeyYet(_)) => opening::create_key(&key_file)?,
                Err(error) => return Err(error),
            };
            Ok((Self::prepared(folder, key)?, is_new))
        })
        .await
    }

    /// The vault as it is, for looking: nothing is made or removed. `None` where there is no vault.
    pub async fn look(folder: PathBuf, key: VaultKey) -> Result<Option<Self>, VaultError> {
        blocking_start(move || Self::found(folder, key)).await
    }

    /// As [`Vault::look`], with the key in `key_file`. `None` too where there is neither a key nor
    /// anything sealed.
    pub async fn look_with_key_file(
        folder: PathBuf,
        key_file: PathBuf,
    ) -> Result<Option<Self>, VaultError> {
        blocking_start(move || match opening::find_key(&folder, &key_file) {
            Ok(key) => Self::found(folder, key),
            Err(VaultError::NoKeyYet(_)) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    fn found(folder: PathBuf, key: VaultKey) -> Result<Option<Self>, VaultError> {
        let is_there = opening::look(&folder, &key)?;
        Ok(is_there.then(|| Self::with(folder, key)))
    }

    fn prepared(folder: PathBuf, key: VaultKey) -> Result<Self, VaultError> {
        opening::prepare(&folder, &key)?;
        Ok(Self::with(folder, key))
    }

    fn with(folder: PathBuf, key: VaultKey) -> Self {
        Self {
            inner: Arc::new(Inner {
                folder,
                keys: vec![key],
            }),
        }
    }

    /// Seals a value into a file without a name in the vault's folder and opens it again, so that it is
    /// known that the vault takes and gives; nothing is left of it.
    pub async fn probe(&self) -> Result<(), SecretError> {
        self.blocking(Inner::probe).await
    }

    /// The key that new versions are sealed with.
    pub fn key_id(&self) -> Option<KeyId> {
        self.inner.keys.first().map(VaultKey::id)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, SecretError> + Send + 'static,
    ) -> Result<T, SecretError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(unavailable("working in the vault", error)),
        }
    }
}

#[async_trait]
impl SecretStore for Vault {
    /// The vault keeps no labels: a secret's name says all of them.
    async fn put(
        &self,
        name: &SecretName,
        value: SecretBytes,
        _labels: &Labels,
    ) -> Result<SecretPath, SecretError> {
        let name = name.clone();
        self.blocking(move |inner| inner.put(&name, &value)).await
    }

    async fn get(&self, path: &SecretPath) -> Result<SecretBytes, SecretError> {
        let path = path.clone();
        self.blocking(move |inner| inner.get(&path)).await
    }

    async fn destroy(&self, path: &SecretPath) -> Result<(), SecretError> {
        let path = path.clone();
        self.blocking(move |inner| inner.destroy(&path)).await
    }

    async fn versions(&self, name: &SecretName) -> Result<Vec<SecretPath>, SecretError> {
        let name = name.clone();
        self.blocking(move |inner| inner.versions(&name)).await
    }

    async fn delete(&self, name: &SecretName) -> Result<(), SecretError> {
        let name = name.clone();
        self.blocking(move |inner| inner.delete(&name)).await
    }
}

impl Inner {
    fn put(&self, name: &SecretName, value: &SecretBytes) -> Result<SecretPath, SecretError> {
        let length = value.expose_secret().len();
        if length > MAX_SECRET_BYTES {
            return Err(SecretError::too_long(length));
        }
        let _lock = self.lock()?;
        self.add_version(name, value)
    }

    fn sealing_key(&self) -> Result<&VaultKey, SecretError> {
        let missing = || unavailable("sealing a secret", io::Error::other("no key is held"));
        self.keys.first().ok_or_else(missing)
    }

    fn probe(&self) -> Result<(), SecretError> {
        let name: SecretName = PROBE.parse()?;
        let sealed = cipher::seal(self.sealing_key()?, &name, 0, PROBE.as_bytes())
            .map_err(|error| unavailable("sealing a probe", error))?;
        let read = files::write_and_read_back(&self.folder, &sealed)
            .map_err(|error| refused("writing a probe", error))?;
        let damaged = |reason: String| SecretError::Corrupt {
            what: "what was just written".to_owned(),
            reason,
        };
        cipher::open(&self.keys, &name, 0, &read)
            .map(drop)
            .map_err(|error| damaged(error.to_string()))
    }

    /// Gives `value` the next number. The lock keeps numbers from being used twice; without it two
    /// writers still cannot get the same one.
    pub(super) fn add_version(
        &self,
        name: &SecretName,
        value: &SecretBytes,
    ) -> Result<SecretPath, SecretError> {
        let key = self.sealing_key()?;
        let folder = self.folder.join(name.as_str());
        files::make_folder(&folder).map_err(|error| refused("making a secret's folder", error))?;
        for _ in 0..NUMBER_ATTEMPTS {
            let next = Listing::read(&folder)
                .map_err(|error| refused("listing a secret", error))?
                .highest()
                .checked_add(1)
                .ok_or_else(|| SecretError::Rejected("its versions are used up".to_owned()))?;
            let path = SecretPath::new(name, next)
                .map_err(|error| SecretError::Rejected(error.to_string()))?;
            let sealed = cipher::seal(key, name, next, value.expose_secret())
                .map_err(|error| unavailable("sealing a secret", error))?;
            match files::write_new(&folder.join(next.to_string()), &sealed) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(refused("writing a secret", error)),
            }
        }
        Err(unavailable(
            "writing a secret",
            io::Error::other("other processes took every number that was tried"),
        ))
    }

    fn get(&self, path: &SecretPath) -> Result<SecretBytes, SecretError> {
        let file = self.folder_of(path)?.join(path.version().to_string());
        let sealed = match files::read(&file, MAX_SECRET_BYTES + cipher::OVERHEAD) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SecretError::Missing(path.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(SecretError::Corrupt {
                    what: path.to_string(),
                    reason: "it is longer than any secret".to_owned(),
                });
            }
            Err(error) => return Err(refused("reading a secret", error)),
        };
        cipher::open(&self.keys, path.name(), path.version(), &sealed).map_err(
            |error| match error {
                CipherError::WrongKey { sealed_with } => SecretError::WrongKey {
                    what: path.to_string(),
                    sealed_with,
                    held: self.keys.iter().map(VaultKey::id).collect(),
                },
                other => SecretError::Corrupt {
                    what: path.to_string(),
                    reason: other.to_string(),
                },
            },
        )
    }

    fn versions(&self, name: &SecretName) -> Result<Vec<SecretPath>, SecretError> {
        let listing = Listing::read(&self.folder.join(name.as_str()))
            .map_err(|error| refused("listing a secret", error))?;
        let mut paths = Vec::new();
        for version in listing.live {
            let path = SecretPath::new(name, version)
                .map_err(|error| SecretError::Rejected(error.to_string()))?;
            paths.push(path);
        }
        Ok(paths)
    }

    fn destroy(&self, path: &SecretPath) -> Result<(), SecretError> {
        let folder = self.folder_of(path)?;
        let _lock = self.lock()?;
        unlink_versions(&folder, |version| version == path.version())
            .map_err(|error| refused("destroying a secret", error))
    }

    fn delete(&self, name: &SecretName) -> Result<(), SecretError> {
        let _lock = self.lock()?;
        unlink_versions(&self.folder.join(name.as_str()), |_| true)
            .map_err(|error| refused("deleting a secret", error))
    }

    /// A path in Secret Manager is none of the vault's, whatever its name.
    fn folder_of(&self, path: &SecretPath) -> Result<PathBuf, SecretError> {
        if path.project().is_some() {
            return Err(SecretError::Missing(path.clone()));
        }
        Ok(self.folder.join(path.name().as_str()))
    }

    fn lock(&self) -> Result<fs::File, SecretError> {
        files::lock(&self.folder.join(LOCK_FILE))
            .map_err(|error| refused("locking the vault", error))
    }
}

/// The numbers in a secret's folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) live: BTreeSet<u64>,
    destroyed: BTreeSet<u64>,
}

impl Listing {
    /// Empty where there is no such folder; files of other names do not count.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(text) = name.to_str() else { continue };
            if let Some(version) = parse_version(text) {
                listing.live.insert(version);
            } else if let Some(version) =
                text.strip_suffix(DESTROYED_SUFFIX).and_then(parse_version)
            {
                listing.destroyed.insert(version);
            }
        }
        Ok(listing)
    }

    /// The highest number that was ever given, 0 where none was.
    fn highest(&self) -> u64 {
        self.live
            .last()
            .max(self.destroyed.last())
            .copied()
            .unwrap_or(0)
    }
}

/// Unlinks the live versions that are `doomed`. Should the highest number go with them, it is noted
/// first, so that no crash lets numbers start again.
fn unlink_versions(folder: &Path, doomed: impl Fn(u64) -> bool) -> io::Result<()> {
    let listing = Listing::read(folder)?;
    let highest = listing.highest();
    let going: Vec<u64> = listing.live.into_iter().filter(|v| doomed(*v)).collect();
    if going.is_empty() {
        return Ok(());
    }
    if going.contains(&highest) {
        files::touch(&folder.join(format!("{highest}{DESTROYED_SUFFIX}")))?;
        files::sync_folder(folder)?;
    }
    for version in going {
        files::remove(&folder.join(version.to_string()))?;
    }
    for lower in listing.destroyed.range(..highest) {
        files::remove(&folder.join(format!("{lower}{DESTROYED_SUFFIX}")))?;
    }
    files::sync_folder(folder)
}

async fn blocking_start<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(VaultError::io(
            "opening",
            Path::new("the vault"),
            io::Error::other(error),
        )),
    }
}

fn refused(doing: &str, error: io::Error) -> SecretError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return SecretError::Denied {
            doing: doing.to_owned(),
            source: Box::new(error),
        };
    }
    unavailable(doing, error)
}

fn unavailable(doing: &str, error: impl Error + Send + Sync + 'static) -> SecretError {
    SecretError::Unavailable {
        doing: doing.to_owned(),
        source: Box::new(error),
    }
}
