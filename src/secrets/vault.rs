//! The embedded secret store: a folder of sealed files, one a secret version.
//!
//! ```text
//! vault/                    0700
//!   vault.lock              held by whoever changes anything, across processes
//!   rotate.lock             held by whoever gives the vault another key
//!   key.check               a sealed nothing: names the key that seals, and tells a wrong one
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
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::{
    KeyId, Labels, MAX_SECRET_BYTES, SecretBytes, SecretError, SecretName, SecretPath, SecretStore,
    VaultError, VaultKey,
    cipher::{self, CipherError},
    files,
    key::Keys,
    opening, parse_version,
    rotation::Rotated,
};

/// A name with a dot is never that of a secret.
pub(super) const LOCK_FILE: &str = "vault.lock";
const DESTROYED_SUFFIX: &str = ".destroyed";
/// What [`Vault::probe`] seals, and under which name, as version 0, which no secret has.
const PROBE: &str = "probe";

/// How often a version is read that was sealed with a key that was not held at first.
const READS_WHILE_ROTATING: u32 = 3;
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
    pub(super) folder: PathBuf,
    /// Where the keys come from, if it is no configuration: another process may replace them.
    pub(super) key_file: Option<PathBuf>,
    /// All of them open; the check file names the one that seals.
    keys: RwLock<Keys>,
}

impl Vault {
    /// Opens the vault in `folder`, which is made where it is missing. Finds a wrong key, and removes
    /// what processes that died left half written.
    pub async fn open(folder: PathBuf, keys: impl Into<Keys>) -> Result<Self, VaultError> {
        let keys = keys.into();
        blocking_start(move || Self::prepared(folder, None, keys)).await
    }

    /// Opens the vault with the key in `key_file`, which `serve` and `work` expect to find.
    pub async fn open_with_key_file(
        folder: PathBuf,
        key_file: PathBuf,
    ) -> Result<Self, VaultError> {
        blocking_start(move || {
            let keys = opening::find_keys(&folder, &key_file)?;
            Self::prepared(folder, Some(key_file), keys)
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
            let (keys, is_new) = match opening::find_keys(&folder, &key_file) {
                Ok(keys) => (keys, false),
                Err(VaultError::NoKeyYet(_)) => {
                    let (key, is_new) = opening::create_key(&key_file)?;
                    (key.into(), is_new)
                }
                Err(error) => return Err(error),
            };
            Ok((Self::prepared(folder, Some(key_file), keys)?, is_new))
        })
        .await
    }

    /// The vault as it is, for looking: nothing is made or removed. `None` where there is no vault.
    pub async fn look(folder: PathBuf, keys: impl Into<Keys>) -> Result<Option<Self>, VaultError> {
        let keys = keys.into();
        blocking_start(move || Self::found(folder, None, keys)).await
    }

    /// As [`Vault::look`], with the key in `key_file`. `None` too where there is neither a key nor
    /// anything sealed.
    pub async fn look_with_key_file(
        folder: PathBuf,
        key_file: PathBuf,
    ) -> Result<Option<Self>, VaultError> {
        blocking_start(move || match opening::find_keys(&folder, &key_file) {
            Ok(keys) => Self::found(folder, Some(key_file), keys),
            Err(VaultError::NoKeyYet(_)) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    fn found(
        folder: PathBuf,
        key_file: Option<PathBuf>,
        keys: Keys,
    ) -> Result<Option<Self>, VaultError> {
        let keys = opening::look(&folder, key_file.as_deref(), keys)?;
        Ok(keys.map(|keys| Self::with(folder, key_file, keys)))
    }

    fn prepared(
        folder: PathBuf,
        key_file: Option<PathBuf>,
        keys: Keys,
    ) -> Result<Self, VaultError> {
        let keys = opening::prepare(&folder, key_file.as_deref(), keys)?;
        Ok(Self::with(folder, key_file, keys))
    }

    fn with(folder: PathBuf, key_file: Option<PathBuf>, keys: Keys) -> Self {
        Self {
            inner: Arc::new(Inner {
                folder,
                key_file,
                keys: RwLock::new(keys),
            }),
        }
    }

    /// Gives the vault another key: the one that is configured first, or a new one in place of that in
    /// the key file. Every version is sealed anew; whoever has the vault open goes on reading and
    /// writing. Where this dies in between, both keys are known and the next call goes on.
    pub async fn rotate(&self) -> Result<Rotated, SecretError> {
        self.blocking(Inner::rotate).await
    }

    /// Whether a rotation has begun and not come to its end.
    pub fn is_rotating(&self) -> bool {
        self.inner.key_file.is_some() && self.inner.keys().are_two()
    }

    /// Seals a value into a file without a name in the vault's folder and opens it again, so that it is
    /// known that the vault takes and gives; nothing is left of it.
    pub async fn probe(&self) -> Result<(), SecretError> {
        self.blocking(Inner::probe).await
    }

    /// The key that new versions are sealed with. Blocks for the reading of a small file.
    pub fn key_id(&self) -> Result<KeyId, SecretError> {
        self.inner.sealing_key().map(|key| key.id())
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

    pub(super) fn keys(&self) -> Keys {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the keys again, which another process may have replaced.
    pub(super) fn read_keys_again(&self) -> Result<Keys, SecretError> {
        let Some(key_file) = &self.key_file else {
            return Ok(self.keys());
        };
        let missing = || unavailable("reading the vault's key", io::Error::other("it is gone"));
        let keys = opening::read_keys(key_file)
            .map_err(|error| unavailable("reading the vault's key", error))?
            .ok_or_else(missing)?;
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        held.clone_from(&keys);
        Ok(keys)
    }

    /// The key that the vault seals with now. Whoever writes holds the lock meanwhile.
    fn sealing_key(&self) -> Result<Arc<VaultKey>, SecretError> {
        let named = opening::sealing_key(&self.folder)
            .map_err(|error| refused("reading the vault's check file", error))?;
        let keys = self.keys();
        let Some(named) = named else {
            return Ok(Arc::clone(keys.first()));
        };
        if let Some(key) = keys.by_id(named) {
            return Ok(Arc::clone(key));
        }
        let keys = self.read_keys_again()?;
        keys.by_id(named)
            .cloned()
            .ok_or_else(|| SecretError::WrongKey {
                what: "the vault".to_owned(),
                sealed_with: named,
                held: keys.ids(),
            })
    }

    fn probe(&self) -> Result<(), SecretError> {
        let name: SecretName = PROBE.parse()?;
        let key = self.sealing_key()?;
        let sealed = cipher::seal(&key, &name, 0, PROBE.as_bytes())
            .map_err(|error| unavailable("sealing a probe", error))?;
        let read = files::write_and_read_back(&self.folder, &sealed)
            .map_err(|error| refused("writing a probe", error))?;
        let damaged = |reason: String| SecretError::Corrupt {
            what: "what was just written".to_owned(),
            reason,
        };
        cipher::open([key.as_ref()], &name, 0, &read)
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
            let sealed = cipher::seal(&key, name, next, value.expose_secret())
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
        let mut keys = self.keys();
        let mut reads = 1;
        loop {
            match self.read(path, &keys) {
                // The vault is being given another key: the file may be sealed with the next one, or
                // have been sealed anew since it was read.
                Err(SecretError::WrongKey { .. }) if reads < READS_WHILE_ROTATING => {
                    reads += 1;
                    keys = self.read_keys_again()?;
                }
                read => return read,
            }
        }
    }

    /// Reads a version with these keys.
    pub(super) fn read(&self, path: &SecretPath, keys: &Keys) -> Result<SecretBytes, SecretError> {
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
        cipher::open(keys.iter(), path.name(), path.version(), &sealed).map_err(|error| match error
        {
            CipherError::WrongKey { sealed_with } => SecretError::WrongKey {
                what: path.to_string(),
                sealed_with,
                held: keys.ids(),
            },
            other => SecretError::Corrupt {
                what: path.to_string(),
                reason: other.to_string(),
            },
        })
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

    pub(super) fn lock(&self) -> Result<fs::File, SecretError> {
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

pub(super) fn refused(doing: &str, error: io::Error) -> SecretError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return SecretError::Denied {
            doing: doing.to_owned(),
            source: Box::new(error),
        };
    }
    unavailable(doing, error)
}

pub(super) fn unavailable(doing: &str, error: impl Error + Send + Sync + 'static) -> SecretError {
    SecretError::Unavailable {
        doing: doing.to_owned(),
        source: Box::new(error),
    }
}
