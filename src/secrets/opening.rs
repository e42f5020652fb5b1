//! The start of a vault: which key, is it the right one, is the folder private, what did the dead
//! leave behind. Everything here blocks and runs once; it reads no secret.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    InvalidSecretText, KeyId, MAX_SECRET_BYTES, SecretName, VaultKey,
    cipher::{self, CipherError},
    files,
    key::Keys,
    vault::{LOCK_FILE, Listing},
};

/// A sealed nothing. A name with a dot is never that of a secret.
const CHECK_FILE: &str = "key.check";

/// The name that the check file is sealed under, as version 0, which no secret has.
const CHECK_NAME: &str = "key-check";

/// Why a vault or its key cannot be used; all of these end the start of the program.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There are sealed files and no key.
    #[error(
        "the vault {} holds secrets, but its key file {} is missing: put it back, or set the vault key in the configuration; if the key is lost, move the vault away and connect the accounts again",
        .vault.display(), .key_file.display()
    )]
    KeyMissing {
        /// The folder.
        vault: PathBuf,
        /// Where the key should be.
        key_file: PathBuf,
    },
    /// There is neither a key nor anything sealed, and none was to be made.
    #[error("there is no vault key file {} yet: start `nucleus up` once, or set the vault key in the configuration", .0.display())]
    NoKeyYet(PathBuf),
    /// The text is no key.
    #[error("{place} {problem}; `openssl rand -base64 32` makes one")]
    InvalidKey {
        /// Where the text came from.
        place: String,
        /// What is wrong with it; quotes no part of it.
        problem: &'static str,
    },
    /// Others than the owner may get at it.
    #[error("{} is open to others (mode {mode:04o}): run `chmod {mend} {}`", .path.display(), .path.display())]
    OpenToOthers {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it should have.
        mend: &'static str,
    },
    /// The vault was sealed with another key.
    #[error("the vault {} was sealed with key {sealed_with}, but the key given is {held}: give the key it was sealed with", .vault.display())]
    WrongKey {
        /// The folder.
        vault: PathBuf,
        /// The key it was sealed with.
        sealed_with: KeyId,
        /// The key that was given.
        held: KeyId,
    },
    /// The file that tells a wrong key is not as it was written.
    #[error("{} is damaged ({reason}): remove it to have it made again, and expect damage to other files of the vault", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system said no.
    #[error("failed {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl VaultError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Makes the folder where it is missing, refuses one that others can get at or that was sealed with
/// another key, and removes what processes that died left half written. Gives the keys, which may be others
/// by now where they come from `key_file`.
pub(super) fn prepare(
    folder: &Path,
    key_file: Option<&Path>,
    keys: Keys,
) -> Result<Keys, VaultError> {
    files::make_folder(folder).map_err(|source| VaultError::io("making", folder, source))?;
    refuse_if_open_to_others(folder)?;
    let lock_file = folder.join(LOCK_FILE);
    let lock =
        files::lock(&lock_file).map_err(|source| VaultError::io("locking", &lock_file, source))?;
    let (keys, is_checked) = check_keys(folder, key_file, keys)?;
    if !is_checked {
        write_check_file(folder, keys.first())?;
    }
    // Whoever writes holds the lock, so these have no writer any more.
    remove_temporary_files(folder).map_err(|source| VaultError::io("cleaning", folder, source))?;
    drop(lock);
    Ok(keys)
}

/// As [`prepare`], of a vault that is to stay as it is: nothing is made, removed or locked. No keys where
/// there is no vault.
pub(super) fn look(
    folder: &Path,
    key_file: Option<&Path>,
    keys: Keys,
) -> Result<Option<Keys>, VaultError> {
    let is_there = folder
        .try_exists()
        .map_err(|source| VaultError::io("looking at", folder, source))?;
    if !is_there {
        return Ok(None);
    }
    refuse_if_open_to_others(folder)?;
    let (keys, _) = check_keys(folder, key_file, keys)?;
    Ok(Some(keys))
}

/// The keys that fit the check file, and whether there is one. Between the reading of the key files and
/// this, another key may have been announced, or have taken the first one's place.
fn check_keys(
    folder: &Path,
    key_file: Option<&Path>,
    keys: Keys,
) -> Result<(Keys, bool), VaultError> {
    match (is_key_checked(folder, &keys), key_file) {
        (Err(wrong @ VaultError::WrongKey { .. }), Some(key_file)) => {
            let keys = read_keys(key_file)?.ok_or(wrong)?;
            let is_checked = is_key_checked(folder, &keys)?;
            Ok((keys, is_checked))
        }
        (checked, _) => Ok((keys, checked?)),
    }
}

fn refuse_if_open_to_others(folder: &Path) -> Result<(), VaultError> {
    let mode = files::mode_if_open_to_others(folder)
        .map_err(|source| VaultError::io("looking at", folder, source))?;
    match mode {
        None => Ok(()),
        Some(mode) => Err(VaultError::OpenToOthers {
            path: folder.to_owned(),
            mode,
            mend: "700",
        }),
    }
}

/// Compares the keys with the check file. False where that is missing and no sealed file names another
/// key.
fn is_key_checked(folder: &Path, keys: &Keys) -> Result<bool, VaultError> {
    let wrong = |sealed_with| VaultError::WrongKey {
        vault: folder.to_owned(),
        sealed_with,
        held: keys.first().id(),
    };
    let path = folder.join(CHECK_FILE);
    let damaged = |reason: String| VaultError::Damaged {
        path: path.clone(),
        reason,
    };
    let name = check_name(&path)?;
    match files::read(&path, cipher::OVERHEAD) {
        Ok(sealed) => {
            return match cipher::open(keys.iter(), &name, 0, &sealed) {
                Ok(_) => Ok(true),
                Err(CipherError::WrongKey { sealed_with }) => Err(wrong(sealed_with)),
                Err(error) => Err(damaged(error.to_string())),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(damaged("it is too long".to_owned()));
        }
        Err(error) => return Err(VaultError::io("reading", &path, error)),
    }
    let sealed_files =
        sealed_files(folder).map_err(|source| VaultError::io("listing", folder, source))?;
    for file in sealed_files {
        let sealed = match files::read(&file, MAX_SECRET_BYTES + cipher::OVERHEAD) {
            Ok(sealed) => sealed,
            // Damage to one secret is told when it is read.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => continue,
            Err(error) => return Err(VaultError::io("reading", &file, error)),
        };
        match cipher::key_id(&sealed) {
            Ok(id) if keys.by_id(id).is_none() => return Err(wrong(id)),
            _ => {}
        }
    }
    Ok(false)
}

/// Makes the vault seal with this key from now on, and tell it from others.
pub(super) fn write_check_file(folder: &Path, key: &VaultKey) -> Result<(), VaultError> {
    let path = folder.join(CHECK_FILE);
    let name = check_name(&path)?;
    let sealed = cipher::seal(key, &name, 0, &[])
        .map_err(|error| VaultError::io("making", &path, io::Error::other(error)))?;
    files::replace(&path, &sealed).map_err(|source| VaultError::io("making", &path, source))
}

/// The key that the vault seals with, as its check file names it; none where there is no such file.
pub(super) fn sealing_key(folder: &Path) -> io::Result<Option<KeyId>> {
    match files::read(&folder.join(CHECK_FILE), cipher::OVERHEAD) {
        Ok(sealed) => cipher::key_id(&sealed).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn check_name(path: &Path) -> Result<SecretName, VaultError> {
    let invalid = |error: InvalidSecretText| VaultError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    CHECK_NAME.parse().map_err(invalid)
}

/// The keys in `key_file` and beside it; if there are none, an error that says whether one may be made.
pub(super) fn find_keys(folder: &Path, key_file: &Path) -> Result<Keys, VaultError> {
    if let Some(keys) = read_keys(key_file)? {
        return Ok(keys);
    }
    let is_in_use = folder.join(CHECK_FILE).exists()
        || !sealed_files(folder)
            .map_err(|source| VaultError::io("listing", folder, source))?
            .is_empty();
    if !is_in_use {
        return Err(VaultError::NoKeyYet(key_file.to_owned()));
    }
    // A first start at the same time may have made key and vault since the first look.
    read_keys(key_file)?.ok_or_else(|| VaultError::KeyMissing {
        vault: folder.to_owned(),
        key_file: key_file.to_owned(),
    })
}

/// The key in `key_file` and, while it is replaced, the next one. That is read first: where it has
/// taken the place of the other meanwhile, it is found there.
pub(super) fn read_keys(key_file: &Path) -> Result<Option<Keys>, VaultError> {
    let next = read_key_if_there(&next_key_file(key_file))?;
    let first = read_key_if_there(key_file)?;
    Ok(first.map(|first| Keys::new(first, next)))
}

/// Where the key lies that is about to take the place of the one in `key_file`.
pub(super) fn next_key_file(key_file: &Path) -> PathBuf {
    let mut name = key_file.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

fn read_key_if_there(key_file: &Path) -> Result<Option<VaultKey>, VaultError> {
    match VaultKey::read_file(key_file) {
        Ok(key) => Ok(Some(key)),
        Err(VaultError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new key and true, or the key of a process that made one at the same time and false.
pub(super) fn create_key(key_file: &Path) -> Result<(VaultKey, bool), VaultError> {
    files::make_parent(key_file).map_err(|source| VaultError::io("making", key_file, source))?;
    match VaultKey::create_file(key_file) {
        Err(VaultError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Ok((VaultKey::read_file(key_file)?, false))
        }
        made => Ok((made?, true)),
    }
}

/// The folders of secrets; none where there is no vault.
fn secret_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_name = entry
            .file_name()
            .to_str()
            .is_some_and(|text| text.parse::<SecretName>().is_ok());
        if is_name && entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// Every sealed version; none where there is no vault.
pub(super) fn sealed_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for secret in secret_folders(folder)? {
        for version in Listing::read(&secret)?.live {
            paths.push(secret.join(version.to_string()));
        }
    }
    Ok(paths)
}

fn remove_temporary_files(folder: &Path) -> io::Result<()> {
    let mut folders = secret_folders(folder)?;
    folders.push(folder.to_owned());
    for place in folders {
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            let name = entry.file_name();
            if name
                .as_encoded_bytes()
                .starts_with(files::TEMPORARY_PREFIX.as_bytes())
            {
                files::remove(&entry.path())?;
            }
        }
    }
    Ok(())
}
