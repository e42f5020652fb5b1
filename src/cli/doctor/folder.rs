//! The data folder: its permissions, the room on its disk, its lock and the vault in it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;

use super::report::Check;
use crate::{
    app,
    config::Config,
    db::inspection,
    domain::errors,
    secrets::{Vault, VaultError},
};

/// With less room than this a first sync of a large mailbox may not fit.
const LITTLE_BYTES: u64 = 1024 * 1024 * 1024;
/// With less room than this a batch and SQLite's journal may not fit.
const TOO_LITTLE_BYTES: u64 = 64 * 1024 * 1024;

/// Whether the folder is there, takes files, and is nobody else's.
pub(super) fn data_dir(path: &Path) -> Check {
    const NAME: &str = "data_dir";
    let shown = path.display();
    let another = format!("make {shown} a folder of this user, or choose another with --data-dir");
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::skip(NAME, format!("{shown} is made by the first `nucleus up`"));
        }
        Err(error) => return Check::fail(NAME, format!("{shown}: {error}"), another),
    };
    if !found.is_dir() {
        return Check::fail(NAME, format!("{shown} is no folder"), another);
    }
    // A file without a name: nothing is left of it.
    let written = tempfile::tempfile_in(path).and_then(|mut file| file.write_all(b"nucleus"));
    if let Err(error) = written {
        return Check::fail(NAME, format!("{shown} takes no files: {error}"), another);
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Check::warn(
            NAME,
            format!("{shown} is open to others (mode {mode:04o}), and mail is in it"),
            format!("run `chmod 700 {shown}`"),
        );
    }
    Check::ok(NAME, format!("{shown}, mode {mode:04o}"))
}

/// How much room there is where the data are.
pub(super) fn disk(config: &Config) -> Check {
    let file = inspection::sqlite_file(config.database.url.expose_secret());
    let places = [Some(config.data_dir.as_path()), file.as_deref()];
    match least_room(places.into_iter().flatten()) {
        Ok((bytes, place)) => judge_room(bytes, &place),
        Err(error) => Check::skip("disk", format!("the free space cannot be read: {error}")),
    }
}

/// The least of the free bytes where these are or will be, and where that is.
fn least_room<'a>(places: impl Iterator<Item = &'a Path>) -> io::Result<(u64, PathBuf)> {
    let mut least = (u64::MAX, PathBuf::new());
    for place in places {
        // What is not made yet will be on the disk of the folder above it.
        let existing = place.ancestors().find(|above| above.exists());
        let existing = existing.unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(existing)?;
        let room = disk.f_bavail.saturating_mul(disk.f_frsize);
        if room < least.0 {
            least = (room, existing.to_owned());
        }
    }
    Ok(least)
}

fn judge_room(bytes: u64, place: &Path) -> Check {
    const NAME: &str = "disk";
    let detail = format!("{} MiB free at {}", bytes / (1024 * 1024), place.display());
    let mend = "make room, or choose a folder on another disk with --data-dir";
    match bytes {
        ..TOO_LITTLE_BYTES => Check::fail(NAME, detail, mend),
        TOO_LITTLE_BYTES..LITTLE_BYTES => Check::warn(NAME, detail, mend),
        _ => Check::ok(NAME, detail),
    }
}

/// Whether an `up` has the folder.
pub(super) fn lock(data_dir: &Path) -> (bool, Check) {
    const NAME: &str = "lock";
    match app::is_data_dir_locked(data_dir) {
        Ok(true) => (true, Check::ok(NAME, "an `up` has the data folder")),
        Ok(false) => (false, Check::ok(NAME, "no `up` has the data folder")),
        Err(error) => {
            let detail = format!("the lock cannot be looked at: {error}");
            let mend = "make the data folder readable for this user";
            (false, Check::fail(NAME, detail, mend))
        }
    }
}

/// Whether the vault opens with its key and takes and gives what is sealed; the vault, if it does.
pub(super) async fn vault(config: &Config) -> (Option<Vault>, Check) {
    const NAME: &str = "vault";
    let vault = match app::look_at_vault(config).await {
        Ok(Some(vault)) => vault,
        Ok(None) => {
            let detail = "vault and key are made by the first `nucleus up`";
            return (None, Check::skip(NAME, detail));
        }
        Err(error @ VaultError::Io { .. }) => {
            let mend = "make the data folder and all in it readable and writable for this user";
            return (None, Check::fail(NAME, errors::chain(&error), mend));
        }
        Err(error) => return (None, Check::fail_as_told(NAME, &error.to_string())),
    };
    let check = match vault.probe().await {
        Ok(()) => {
            if vault.is_rotating() {
                let detail = "its key is being replaced, or that was broken off".to_owned();
                let mend = "run `nucleus vault rotate`, unless one is running: it goes on";
                return (Some(vault), Check::warn(NAME, detail, mend));
            }
            let key = vault.key_id().map(|id| format!("key {id}, "));
            let detail = format!("{}sealed and opened a probe", key.unwrap_or_default());
            Check::ok(NAME, detail)
        }
        Err(error) => Check::fail(
            NAME,
            errors::chain(&error),
            "make the vault's folder writable for this user, and look whether its disk is well",
        ),
    };
    (Some(vault), check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;

    #[test]
    fn little_room_is_warned_of_and_too_little_is_a_failure() {
        let place = Path::new("/data");
        for (mebibytes, status) in [
            (10, Status::Fail),
            (64, Status::Warn),
            (1023, Status::Warn),
            (1024, Status::Ok),
        ] {
            let check = judge_room(mebibytes * 1024 * 1024, place);
            assert_eq!(check.status(), status, "{mebibytes}");
        }
    }

    #[test]
    fn the_room_of_what_is_not_made_yet_is_that_of_the_folder_above() {
        let folder = tempfile::tempdir().unwrap();
        let later = folder.path().join("a/b/nucleus.db");
        let (room, place) = least_room([later.as_path()].into_iter()).unwrap();
        assert!(room > 0 && room < u64::MAX);
        assert_eq!(place, folder.path());
        let (_, here) = least_room([Path::new("later")].into_iter()).unwrap();
        assert_eq!(here, Path::new("."));
    }
}
