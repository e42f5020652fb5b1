//! Another key for a vault that is in use.
//!
//! With a key file: the next key is put beside it; the check file is sealed with it, and from then on
//! everybody seals with it, because who writes looks there under the lock; every version is sealed anew
//! and moved over the old file; and the next key takes the other's place. Whoever meets a version that
//! was sealed with a key it does not hold reads the key files again. With configured keys the first is
//! the next one, and every process knows both.
//!
//! Each step may be the last of a process that dies: both keys are there until nothing is sealed with
//! the old one. So it is while a damaged version is, which may yet be mended: the rotation waits for that.

use std::{io, path::Path, sync::Arc};

use secrecy::ExposeSecret;

use super::{
    KeyId, MAX_SECRET_BYTES, SecretError, SecretPath, VaultError, VaultKey, cipher, files, opening,
    vault::{Inner, refused, unavailable},
};

/// Held for a whole rotation. A name with a dot is never that of a secret.
const TURN_FILE: &str = "rotate.lock";

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that everything is sealed with now.
    pub key: KeyId,
    /// Versions that were sealed anew.
    pub versions: u64,
    /// Versions that no key of the vault opens; they stay as they are, and so do both keys.
    pub damaged: Vec<String>,
}

impl Inner {
    pub(super) fn rotate(&self) -> Result<Rotated, SecretError> {
        // One at a time: another would seal with a key that this one is about to forget.
        let _turn = files::lock(&self.folder.join(TURN_FILE))
            .map_err(|error| refused("waiting for another rotation", error))?;
        let next = self.announce()?;
        fail::fail_point!("vault.rotate.announced");
        let mut rotated = Rotated {
            key: next.id(),
            versions: 0,
            damaged: Vec::new(),
        };
        let files = opening::sealed_files(&self.folder)
            .map_err(|error| refused("listing the vault", error))?;
        // What is written from now on is sealed with the next key, so one look at all is enough.
        for file in files {
            self.seal_anew(&file, &next, &mut rotated)?;
        }
        fail::fail_point!("vault.rotate.sealed");
        if rotated.damaged.is_empty() {
            self.take_the_others_place()?;
            fail::fail_point!("vault.rotate.done");
        }
        self.read_keys_again()?;
        Ok(rotated)
    }

    /// Makes the next key known and the one that seals.
    fn announce(&self) -> Result<Arc<VaultKey>, SecretError> {
        let failed = |error: VaultError| unavailable("making the vault's next key", error);
        let _lock = self.lock()?;
        let Some(key_file) = &self.key_file else {
            let next = Arc::clone(self.keys().first());
            opening::write_check_file(&self.folder, &next).map_err(failed)?;
            return Ok(next);
        };
        let place = opening::next_key_file(key_file);
        match VaultKey::create_file(&place) {
            Ok(_) => {}
            // Of a rotation that did not come to its end.
            Err(VaultError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            }
            Err(error) => return Err(failed(error)),
        }
        fail::fail_point!("vault.rotate.made");
        let next = Arc::new(VaultKey::read_file(&place).map_err(failed)?);
        self.read_keys_again()?;
        opening::write_check_file(&self.folder, &next).map_err(failed)?;
        Ok(next)
    }

    /// Seals one version with the next key, unless it is or is gone.
    fn seal_anew(
        &self,
        file: &Path,
        next: &VaultKey,
        rotated: &mut Rotated,
    ) -> Result<(), SecretError> {
        let path = path_of(file)?;
        let _lock = self.lock()?;
        let sealed = match files::read(file, MAX_SECRET_BYTES + cipher::OVERHEAD) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                rotated.damaged.push(path.to_string());
                return Ok(());
            }
            Err(error) => return Err(refused("reading a secret", error)),
        };
        if cipher::key_id(&sealed).is_ok_and(|id| id == next.id()) {
            return Ok(());
        }
        let value = match self.read(&path, &self.keys()) {
            Ok(value) => value,
            Err(SecretError::Corrupt { .. } | SecretError::WrongKey { .. }) => {
                rotated.damaged.push(path.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let sealed = cipher::seal(next, path.name(), path.version(), value.expose_secret())
            .map_err(|error| unavailable("sealing a secret", error))?;
        files::replace(file, &sealed).map_err(|error| refused("writing a secret", error))?;
        rotated.versions += 1;
        fail::fail_point!("vault.rotate.version");
        Ok(())
    }

    /// Ends the rotation: the old key is gone.
    fn take_the_others_place(&self) -> Result<(), SecretError> {
        let Some(key_file) = &self.key_file else {
            return Ok(());
        };
        let _lock = self.lock()?;
        files::move_over(&opening::next_key_file(key_file), key_file)
            .map_err(|error| refused("replacing the vault's key", error))
    }
}

/// The path of the version in a file: its folder is the secret's name, its name the number.
fn path_of(file: &Path) -> Result<SecretPath, SecretError> {
    let name = file.parent().and_then(|folder| folder.file_name());
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    let number = file.file_name().and_then(|name| name.to_str());
    let text = format!("{name}/versions/{}", number.unwrap_or_default());
    Ok(text.parse()?)
}
