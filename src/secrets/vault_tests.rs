//! Tests of the vault as a whole, on real folders.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::domain::{EntityId, ServiceName};

pub(super) const CANARY: &str = "1//canary-refresh-token";

pub(super) fn key(byte: u8) -> VaultKey {
    VaultKey::from_bytes(&[byte; 32])
}

pub(super) fn labels() -> Labels {
    Labels {
        entity_id: EntityId::new(),
        service: ServiceName::Gmail,
    }
}

pub(super) fn value(text: &str) -> SecretBytes {
    text.as_bytes().to_vec().into()
}

pub(super) fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn path(text: &str) -> SecretPath {
    text.parse().unwrap()
}

/// A vault in a folder of its own.
pub(super) struct Place {
    data: TempDir,
    pub(super) store: Box<dyn SecretStore>,
}

impl Place {
    pub(super) async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let vault = Vault::open(data.path().join("vault"), key(1))
            .await
            .unwrap();
        Self {
            data,
            store: Box::new(vault),
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.data.path().join("vault")
    }

    fn file(&self, secret: &str, version: u64) -> PathBuf {
        self.folder().join(secret).join(version.to_string())
    }

    pub(super) async fn put(&self, secret: &str, text: &str) -> SecretPath {
        let secret = name(secret);
        let stored = self.store.put(&secret, value(text), &labels()).await;
        stored.unwrap()
    }

    pub(super) async fn get(&self, text: &str) -> Result<String, SecretError> {
        let bytes = self.store.get(&path(text)).await?;
        Ok(String::from_utf8(bytes.expose_secret().to_vec()).unwrap())
    }

    async fn live(&self, secret: &str) -> Vec<u64> {
        let paths = self.store.versions(&name(secret)).await.unwrap();
        paths.iter().map(SecretPath::version).collect()
    }

    pub(super) async fn reopen(&self, key: VaultKey) -> Result<Vault, VaultError> {
        Vault::open(self.folder(), key).await
    }
}

fn is_corrupt<T>(result: &Result<T, SecretError>) -> bool {
    matches!(result, Err(SecretError::Corrupt { .. }))
}

fn is_missing<T>(result: &Result<T, SecretError>) -> bool {
    matches!(result, Err(SecretError::Missing(_)))
}

pub(super) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every file and folder below `folder`, and `folder`.
pub(super) fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn versions_outlive_the_process() {
    let place = Place::new().await;
    place.put("a", CANARY).await;
    let again = place.reopen(key(1)).await.unwrap();
    let opened = again.get(&path("a/versions/1")).await.unwrap();
    assert_eq!(opened.expose_secret(), CANARY.as_bytes());
    let next = again.put(&name("a"), value("two"), &labels()).await;
    assert_eq!(next.unwrap().version(), 2);
}

#[tokio::test]
async fn files_moved_to_another_name_or_number_are_refused() {
    let place = Place::new().await;
    for secret in ["a", "b"] {
        place.put(secret, "one").await;
        place.put(secret, "two").await;
    }
    fs::copy(place.file("a", 1), place.file("b", 1)).unwrap();
    assert!(is_corrupt(&place.get("b/versions/1").await));
    // A roll-back: the old version's bytes under the new number.
    fs::copy(place.file("a", 1), place.file("a", 2)).unwrap();
    assert!(is_corrupt(&place.get("a/versions/2").await));
    fs::copy(place.file("b", 2), place.file("b", 3)).unwrap();
    assert!(is_corrupt(&place.get("b/versions/3").await));
    assert_eq!(place.get("a/versions/1").await.unwrap(), "one");
}

#[tokio::test]
async fn changed_and_cut_files_are_refused() {
    let place = Place::new().await;
    place.put("a", "x").await;
    let file = place.file("a", 1);
    let sealed = fs::read(&file).unwrap();
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 0x10;
        fs::write(&file, &changed).unwrap();
        match place.get("a/versions/1").await {
            Err(SecretError::WrongKey { .. }) => assert!((5..13).contains(&index)),
            Err(SecretError::Corrupt { .. }) => assert!(!(5..13).contains(&index)),
            other => panic!("byte {index}: {other:?}"),
        }
        fs::write(&file, &sealed[..index]).unwrap();
        assert!(is_corrupt(&place.get("a/versions/1").await), "{index}");
    }
    fs::write(&file, vec![0; 200_000]).unwrap();
    assert!(is_corrupt(&place.get("a/versions/1").await));
    fs::write(&file, &sealed).unwrap();
    assert_eq!(place.get("a/versions/1").await.unwrap(), "x");
}

#[tokio::test]
async fn numbers_never_start_again() {
    let place = Place::new().await;
    for _ in 0..3 {
        place.put("a", CANARY).await;
    }
    place.store.destroy(&path("a/versions/3")).await.unwrap();
    assert_eq!(place.put("a", CANARY).await.version(), 4);
    for version in [4, 1, 2] {
        let destroyed = SecretPath::new(&name("a"), version).unwrap();
        place.store.destroy(&destroyed).await.unwrap();
    }
    assert!(place.live("a").await.is_empty());
    assert_eq!(place.put("a", CANARY).await.version(), 5);
    place.store.delete(&name("a")).await.unwrap();
    assert!(place.live("a").await.is_empty());
    place.store.delete(&name("a")).await.unwrap();
    let again = place.reopen(key(1)).await.unwrap();
    let next = again.put(&name("a"), value("x"), &labels()).await;
    assert_eq!(next.unwrap().version(), 6);
    // Only the highest destroyed number is noted.
    again.delete(&name("a")).await.unwrap();
    let left = walk(&place.folder().join("a"));
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[1].ends_with("6.destroyed"), "{left:?}");
}

#[tokio::test]
async fn a_destroyed_version_is_gone_and_destroying_it_again_is_fine() {
    let place = Place::new().await;
    place.put("a", "one").await;
    place.put("a", "two").await;
    for _ in 0..2 {
        place.store.destroy(&path("a/versions/1")).await.unwrap();
        assert!(is_missing(&place.get("a/versions/1").await));
        assert!(!place.file("a", 1).exists());
        assert_eq!(place.get("a/versions/2").await.unwrap(), "two");
    }
    // Neither a number that was never given nor a secret that never was is used up by it.
    place.store.destroy(&path("a/versions/99")).await.unwrap();
    place.store.destroy(&path("b/versions/1")).await.unwrap();
    place.store.delete(&name("c")).await.unwrap();
    assert_eq!(place.put("a", "three").await.version(), 3);
    assert_eq!(place.put("b", "one").await.version(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_at_once_from_two_vaults_get_numbers_of_their_own() {
    let place = Place::new().await;
    let other = place.reopen(key(1)).await.unwrap();
    let secret = name("a");
    let notes = labels();
    let mut puts = Vec::new();
    for index in 0..16 {
        let store: &dyn SecretStore = if index % 2 == 0 {
            &*place.store
        } else {
            &other
        };
        puts.push(store.put(&secret, value(&index.to_string()), &notes));
    }
    let paths: Vec<SecretPath> = join_all(puts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for (index, stored) in paths.iter().enumerate() {
        let text = place.get(stored.as_str()).await.unwrap();
        assert_eq!(text, index.to_string());
    }
    assert_eq!(place.live("a").await, Vec::from_iter(1..=16));
}

#[tokio::test]
async fn writers_get_numbers_of_their_own_even_where_locks_do_not_work() {
    let place = Place::new().await;
    let vault = place.reopen(key(1)).await.unwrap();
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let start = |index: usize| {
            let inner = vault.inner.clone();
            let put = move || inner.add_version(&name("a"), &value(&index.to_string()));
            (index, scope.spawn(put))
        };
        let writers: Vec<_> = (0..16).map(start).collect();
        let stored = writers.into_iter().map(|(index, writer)| {
            let stored = writer.join().unwrap().unwrap();
            let sealed = fs::read(place.file("a", stored.version())).unwrap();
            let opened = cipher::open(&[key(1)], &name("a"), stored.version(), &sealed).unwrap();
            assert_eq!(opened.expose_secret(), index.to_string().as_bytes());
            stored.version()
        });
        stored.collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(1..=16));
}

#[tokio::test]
async fn everything_in_the_vault_is_private_and_sealed() {
    let place = Place::new().await;
    place.put("a", CANARY).await;
    place.put("a", CANARY).await;
    place.store.destroy(&path("a/versions/2")).await.unwrap();
    let found = walk(&place.folder());
    assert_eq!(found.len(), 6, "{found:?}");
    for path in found {
        if path.is_dir() {
            assert_eq!(mode(&path), 0o700, "{path:?}");
            continue;
        }
        assert_eq!(mode(&path), 0o600, "{path:?}");
        let bytes = fs::read(&path).unwrap();
        let canary = CANARY.as_bytes();
        assert!(
            !bytes.windows(canary.len()).any(|part| part == canary),
            "{path:?}"
        );
    }
}

#[tokio::test]
async fn a_vault_open_to_others_is_refused_with_the_mend() {
    let place = Place::new().await;
    for bits in [0o750, 0o705, 0o777] {
        fs::set_permissions(place.folder(), Permissions::from_mode(bits)).unwrap();
        let text = place.reopen(key(1)).await.unwrap_err().to_string();
        let mend = format!("chmod 700 {}", place.folder().display());
        assert!(text.contains(&mend), "{text}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_found_when_the_vault_is_opened() {
    let place = Place::new().await;
    let error = place.reopen(key(2)).await.unwrap_err();
    let VaultError::WrongKey {
        sealed_with, held, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*sealed_with, *held), (key(1).id(), key(2).id()));

    // Without the check file the secrets themselves tell, and the right key makes it again.
    place.put("a", CANARY).await;
    let check = place.folder().join("key.check");
    fs::remove_file(&check).unwrap();
    let refused = place.reopen(key(2)).await;
    assert!(matches!(refused, Err(VaultError::WrongKey { .. })));
    assert!(!check.exists());
    place.reopen(key(1)).await.unwrap();
    assert!(check.exists());
}

#[tokio::test]
async fn a_damaged_check_file_is_told_from_a_wrong_key() {
    let place = Place::new().await;
    let check = place.folder().join("key.check");
    let mut sealed = fs::read(&check).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    fs::write(&check, &sealed).unwrap();
    let refused = place.reopen(key(1)).await;
    assert!(matches!(refused, Err(VaultError::Damaged { .. })));
}

#[tokio::test]
async fn a_version_sealed_with_another_key_names_both_keys() {
    let place = Place::new().await;
    place.put("a", CANARY).await;
    let sealed = cipher::seal(&key(2), &name("a"), 1, CANARY.as_bytes()).unwrap();
    fs::write(place.file("a", 1), sealed).unwrap();
    let error = place.get("a/versions/1").await.unwrap_err();
    let text = error.to_string();
    for id in [key(1).id(), key(2).id()] {
        assert!(text.contains(&id.to_string()), "{text}");
    }
}

#[tokio::test]
async fn the_first_start_makes_a_key_and_later_ones_find_it() {
    let data = tempfile::tempdir().unwrap();
    let home = data.path().join("not").join("yet");
    let (folder, key_file) = (home.join("vault"), home.join("vault.key"));
    let none = Vault::open_with_key_file(folder.clone(), key_file.clone()).await;
    assert!(matches!(none, Err(VaultError::NoKeyYet(_))));
    assert!(!key_file.exists() && !folder.exists());

    let open = || Vault::open_or_create(folder.clone(), key_file.clone());
    let (vault, is_new) = open().await.unwrap();
    assert!(is_new);
    assert_eq!(mode(&key_file), 0o600);
    let stored = vault
        .put(&name("a"), value(CANARY), &labels())
        .await
        .unwrap();
    let (again, is_new) = open().await.unwrap();
    assert!(!is_new);
    assert_eq!(again.key_id().unwrap(), vault.key_id().unwrap());
    assert_eq!(
        again.get(&stored).await.unwrap().expose_secret(),
        CANARY.as_bytes()
    );
    let served = Vault::open_with_key_file(folder.clone(), key_file.clone()).await;
    assert_eq!(served.unwrap().key_id().unwrap(), vault.key_id().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_first_starts_at_once_agree_on_one_key() {
    for _ in 0..20 {
        let data = tempfile::tempdir().unwrap();
        let open =
            || Vault::open_or_create(data.path().join("vault"), data.path().join("vault.key"));
        let opened = join_all([open(), open(), open()]).await;
        let opened: Vec<(Vault, bool)> = opened.into_iter().map(Result::unwrap).collect();
        assert_eq!(opened.iter().filter(|(_, is_new)| *is_new).count(), 1);
        assert!(
            opened
                .iter()
                .all(|(vault, _)| vault.key_id().unwrap() == opened[0].0.key_id().unwrap())
        );
    }
}

#[tokio::test]
async fn a_missing_key_is_never_replaced_while_the_vault_holds_files() {
    let data = tempfile::tempdir().unwrap();
    let (folder, key_file) = (data.path().join("vault"), data.path().join("vault.key"));
    let (vault, _) = Vault::open_or_create(folder.clone(), key_file.clone())
        .await
        .unwrap();
    vault
        .put(&name("a"), value(CANARY), &labels())
        .await
        .unwrap();
    fs::remove_file(&key_file).unwrap();
    for has_check in [true, false] {
        if !has_check {
            fs::remove_file(folder.join("key.check")).unwrap();
        }
        let error = Vault::open_or_create(folder.clone(), key_file.clone())
            .await
            .unwrap_err();
        assert!(matches!(error, VaultError::KeyMissing { .. }), "{error}");
        assert!(error.to_string().contains("put it back"), "{error}");
        assert!(!key_file.exists());
    }
}

#[tokio::test]
async fn an_empty_or_short_key_file_is_refused_and_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let (folder, key_file) = (data.path().join("vault"), data.path().join("vault.key"));
    for text in ["", "c2hvcnQ=\n"] {
        fs::write(&key_file, text).unwrap();
        fs::set_permissions(&key_file, Permissions::from_mode(0o600)).unwrap();
        let refused = Vault::open_or_create(folder.clone(), key_file.clone()).await;
        assert!(matches!(refused, Err(VaultError::InvalidKey { .. })));
        assert_eq!(fs::read_to_string(&key_file).unwrap(), text);
    }
}

#[tokio::test]
async fn files_of_dead_writers_do_not_matter_and_are_removed_at_the_next_start() {
    let place = Place::new().await;
    place.put("a", CANARY).await;
    let left = [
        place.folder().join(".tmp-check"),
        place.folder().join("a").join(".tmp-Xy12"),
    ];
    let strange = place.folder().join("a").join("07");
    for file in left.iter().chain([&strange]) {
        fs::write(file, "half").unwrap();
    }
    assert_eq!(place.live("a").await, [1]);
    assert_eq!(place.put("a", CANARY).await.version(), 2);
    place.reopen(key(1)).await.unwrap();
    assert!(left.iter().all(|file| !file.exists()));
    assert!(
        strange.exists(),
        "a file that is not the vault's was removed"
    );
    assert_eq!(place.get("a/versions/1").await.unwrap(), CANARY);
}

#[tokio::test]
async fn a_crash_while_destroying_loses_no_number() {
    let place = Place::new().await;
    place.put("a", CANARY).await;
    // The number is noted and the version is still there: destroying goes on from here.
    fs::write(place.folder().join("a").join("1.destroyed"), "").unwrap();
    place.store.destroy(&path("a/versions/1")).await.unwrap();
    assert!(is_missing(&place.get("a/versions/1").await));
    assert_eq!(place.put("a", CANARY).await.version(), 2);
}

#[tokio::test]
async fn neither_debug_nor_errors_show_a_secret() {
    let place = Place::new().await;
    place.put("a", CANARY).await;
    let vault = place.reopen(key(0x5a)).await.unwrap_err();
    let opened = place.reopen(key(1)).await.unwrap();
    let got = opened.get(&path("a/versions/1")).await.unwrap();
    fs::write(place.file("a", 1), CANARY.repeat(10)).unwrap();
    let error = opened.get(&path("a/versions/1")).await.unwrap_err();
    let shown = format!("{vault} {vault:?} {opened:?} {got:?} {error} {error:?}");
    for part in ["canary", "90, 90", "5a5a", "1, 1, 1", "0101"] {
        assert!(!shown.contains(part), "{part}: {shown}");
    }
}
