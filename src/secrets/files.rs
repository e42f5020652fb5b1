//! Files that are nobody else's: made with mode 0600 in folders of mode 0700, there whole or not at
//! all, never in place of another. Everything here blocks; it knows nothing of keys and secrets.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// How the names of files begin that are still being written, or whose writer died.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";

/// Makes `path` hold `bytes`; `AlreadyExists` if there is such a file. When this returns, neither a
/// crash nor a power cut takes the file away.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path)?;
    let file = written(folder, bytes)?;
    // One step that fails where the name is taken: renameat2 or link, never a plain rename.
    file.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Puts `bytes` in place of what `path` holds: whoever reads it gets the one or the other, whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path)?;
    let file = written(folder, bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// A synced file in `folder` that holds `bytes` and has no lasting name yet.
fn written(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Moves a file into the place of another in the same folder.
pub(super) fn move_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(parent(to)?)
}

/// What comes back of `bytes` from a synced file in `folder` that has no name, so that nothing is left
/// of it however this ends.
pub(super) fn write_and_read_back(folder: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    file.rewind()?;
    let mut read = Vec::new();
    file.read_to_end(&mut read)?;
    Ok(read)
}

/// Makes an empty file unless it is there.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Unlinks a file unless it is gone. What it held is not overwritten first: it is sealed or worthless,
/// and on flash and copying file systems overwriting does not reach the old blocks.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder of mode 0700, with what lies above it, unless it is there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    sync_folder(parent(path)?)
}

/// Makes the folder that `path` is to lie in, as [`make_folder`] does.
pub(super) fn make_parent(path: &Path) -> io::Result<()> {
    make_folder(parent(path)?)
}

/// Makes what was added to or removed from a folder last.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The whole file; `FileTooLarge` above `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for everything at once: a vector that grows leaves copies of its contents behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    File::open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Waits until no other process, and nobody else in this one, holds the lock on `path`, and holds it
/// until the answer is dropped. The lock of a process that dies is free at once.
pub(super) fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The permission bits of `path` if anybody but its owner may do anything with it.
pub(super) fn mode_if_open_to_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// The folder a file lies in; a bare name lies in the current one.
fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_never_put_in_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new(&path, b"first").unwrap();
        let error = write_new(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        // The file that lost is not left lying about.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_replaced_is_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(mode_if_open_to_others(&path).unwrap(), None);
        let other = folder.path().join("other");
        write_new(&other, b"third").unwrap();
        move_over(&other, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_above_the_limit_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap().as_slice(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_made_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a").join("b");
        make_folder(&inner).unwrap();
        make_folder(&inner).unwrap();
        write_new(&inner.join("file"), b"x").unwrap();
        touch(&inner.join("empty")).unwrap();
        touch(&inner.join("empty")).unwrap();
        drop(lock(&inner.join("lock")).unwrap());
        for name in ["", "file", "empty", "lock"] {
            let path = inner.join(name);
            assert_eq!(mode_if_open_to_others(&path).unwrap(), None, "{path:?}");
        }
        fs::set_permissions(inner.join("file"), Permissions::from_mode(0o640)).unwrap();
        let mode = mode_if_open_to_others(&inner.join("file")).unwrap();
        assert_eq!(mode, Some(0o640));
    }
}
