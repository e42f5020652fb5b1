//! Tests of a vault that is given another key while it is in use.

use std::{collections::BTreeSet, fs, path::Path};

use secrecy::ExposeSecret;

use super::{
    vault_tests::{CANARY, Place, key, labels, mode, name, value, walk},
    *,
};

/// A vault with its key in a file beside it.
async fn with_key_file(data: &Path) -> Vault {
    let opened = Vault::open_or_create(data.join("vault"), data.join("vault.key")).await;
    opened.unwrap().0
}

/// The ids of the keys that the sealed versions name.
fn sealed_with(folder: &Path) -> BTreeSet<String> {
    let files = opening::sealed_files(folder).unwrap();
    let ids = files
        .iter()
        .map(|file| cipher::key_id(&fs::read(file).unwrap()).unwrap());
    ids.map(|id| id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_reads_and_writes_while_the_key_is_replaced() {
    let data = tempfile::tempdir().unwrap();
    let vault = with_key_file(data.path()).await;
    let other = with_key_file(data.path()).await;
    let old = vault.key_id().unwrap();
    let mut paths = Vec::new();
    for number in 0..40 {
        let secret = name(&format!("secret-{number}"));
        let text = format!("{CANARY} {number}");
        paths.push(vault.put(&secret, value(&text), &labels()).await.unwrap());
    }
    let read_all = async || {
        for (number, path) in paths.iter().enumerate() {
            let read = other.get(path).await.unwrap();
            let text = format!("{CANARY} {number}");
            assert_eq!(read.expose_secret(), text.as_bytes());
        }
    };
    let mut rotations = Vec::new();
    for turn in 0..3 {
        let written = name(&format!("written-{turn}"));
        let labels = labels();
        let (rotated, (), put) = tokio::join!(
            vault.rotate(),
            read_all(),
            other.put(&written, value("new"), &labels),
        );
        let rotated = rotated.unwrap();
        assert!(
            rotated.versions >= 40 && rotated.damaged.is_empty(),
            "{rotated:?}"
        );
        let put = put.unwrap();
        assert_eq!(vault.get(&put).await.unwrap().expose_secret(), b"new");
        read_all().await;
        let expected = BTreeSet::from([rotated.key.to_string()]);
        assert_eq!(sealed_with(&data.path().join("vault")), expected);
        assert!(!vault.is_rotating());
        rotations.push(rotated.key);
    }
    assert!(!rotations.contains(&old), "{rotations:?}");
    let reopened = with_key_file(data.path()).await;
    assert_eq!(
        reopened.get(&paths[7]).await.unwrap().expose_secret(),
        b"1//canary-refresh-token 7"
    );
    for path in walk(data.path()).iter().filter(|path| *path != data.path()) {
        assert_eq!(mode(path) & 0o077, 0, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_at_once_are_two_rotations() {
    let data = tempfile::tempdir().unwrap();
    let vault = with_key_file(data.path()).await;
    let path = vault.put(&name("a"), value("x"), &labels()).await.unwrap();
    let other = with_key_file(data.path()).await;
    let (one, two) = tokio::join!(vault.rotate(), other.rotate());
    assert_ne!(one.unwrap().key, two.unwrap().key);
    for vault in [&vault, &other] {
        assert_eq!(vault.get(&path).await.unwrap().expose_secret(), b"x");
    }
    assert_eq!(sealed_with(&data.path().join("vault")).len(), 1);
}

#[tokio::test]
async fn configured_keys_are_two_until_everything_is_sealed_anew() {
    let place = Place::new().await;
    let path = place.put("a", "x").await;
    let both = || Keys::new(key(2), Some(key(1)));
    let running = Vault::open(place.folder(), both()).await.unwrap();
    // Until it is rotated the old key seals, so that who knows no other can read on.
    let written = running
        .put(&name("b"), value("y"), &labels())
        .await
        .unwrap();
    assert_eq!(place.get(written.as_str()).await.unwrap(), "y");
    let vault = Vault::open(place.folder(), both()).await.unwrap();
    let rotated = vault.rotate().await.unwrap();
    assert_eq!((rotated.key, rotated.versions), (key(2).id(), 2));
    assert_eq!(running.get(&path).await.unwrap().expose_secret(), b"x");
    // Who was not told of the new key is refused, rather than seal with the old one.
    let refused = place.store.put(&name("c"), value("z"), &labels()).await;
    assert!(matches!(refused, Err(SecretError::WrongKey { .. })));
    assert!(place.reopen(key(1)).await.is_err());
    let alone = place.reopen(key(2)).await.unwrap();
    assert_eq!(alone.get(&written).await.unwrap().expose_secret(), b"y");
}

#[tokio::test]
async fn a_damaged_version_does_not_keep_the_others_from_another_key() {
    let data = tempfile::tempdir().unwrap();
    let vault = with_key_file(data.path()).await;
    let good = vault
        .put(&name("good"), value("x"), &labels())
        .await
        .unwrap();
    let bad = vault
        .put(&name("bad"), value("y"), &labels())
        .await
        .unwrap();
    let file = data.path().join("vault/bad/1");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let rotated = vault.rotate().await.unwrap();
    let key = rotated.key;
    assert_eq!(
        (rotated.versions, rotated.damaged),
        (1, vec![bad.to_string()])
    );
    assert_eq!(vault.get(&good).await.unwrap().expose_secret(), b"x");
    // The old key is kept for what is mended later, and the rotation goes on then.
    assert!(vault.is_rotating());
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let reopened = with_key_file(data.path()).await;
    assert_eq!(reopened.get(&bad).await.unwrap().expose_secret(), b"y");
    let rotated = vault.rotate().await.unwrap();
    let whole = Rotated {
        key,
        versions: 1,
        damaged: Vec::new(),
    };
    assert_eq!(rotated, whole);
    assert!(!vault.is_rotating());
    assert_eq!(vault.get(&bad).await.unwrap().expose_secret(), b"y");
}

#[tokio::test]
async fn keys_that_were_read_before_a_rotation_are_read_again() {
    let data = tempfile::tempdir().unwrap();
    let (folder, key_file) = (data.path().join("vault"), data.path().join("vault.key"));
    let vault = with_key_file(data.path()).await;
    let path = vault.put(&name("a"), value("x"), &labels()).await.unwrap();
    let before = || VaultKey::read_file(&key_file);
    let (first, second) = (before().unwrap(), before().unwrap());
    let rotated = vault.rotate().await.unwrap();
    let keys = opening::prepare(&folder, Some(&key_file), first.into()).unwrap();
    assert_eq!(keys.ids(), [rotated.key]);
    let keys = opening::look(&folder, Some(&key_file), second.into()).unwrap();
    assert_eq!(keys.unwrap().ids(), [rotated.key]);
    // A key that is none of the vault's stays wrong.
    let wrong = opening::prepare(&folder, Some(&key_file), key(9).into());
    assert!(wrong.is_ok(), "the key file is the vault's");
    let wrong = opening::prepare(&folder, None, key(9).into());
    assert!(matches!(wrong, Err(VaultError::WrongKey { .. })));
    assert_eq!(vault.get(&path).await.unwrap().expose_secret(), b"x");
}
