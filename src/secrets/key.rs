//! The vault's key: 32 bytes that are wiped when dropped, and the file that keeps them where no
//! configuration gives them. The functions on files block; they are for the start of the program.

use std::{io, path::Path, sync::Arc};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::aead::{OsRng, rand_core::RngCore};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{KeyId, VaultError, files};

const KEY_BYTES: usize = 32;

/// No key file is longer, in bytes; one that is holds something else.
const KEY_FILE_LIMIT: usize = 1024;

const KEY_ID_CONTEXT: &[u8] = b"nucleus vault key id\0";

/// Takes keys with and without the `=` at the end, as tools differ there.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key of the vault.
#[derive(Debug)]
pub struct VaultKey {
    bytes: SecretBox<[u8; KEY_BYTES]>,
    id: KeyId,
}

impl VaultKey {
    /// Reads the key file at `path`, which nobody but its owner may be able to read.
    pub fn read_file(path: &Path) -> Result<Self, VaultError> {
        if let Some(mode) = files::mode_if_open_to_others(path)
            .map_err(|source| VaultError::io("looking at", path, source))?
        {
            return Err(VaultError::OpenToOthers {
                path: path.to_owned(),
                mode,
                mend: "600",
            });
        }
        let text = match files::read(path, KEY_FILE_LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(invalid_file(path, "is too long for base64 of 32 bytes"));
            }
            Err(error) => return Err(VaultError::io("reading", path, error)),
        };
        decode(&text).map_err(|problem| invalid_file(path, problem))
    }

    /// Makes a key and keeps it in a new file at `path`, mode 0600; never in place of a file that is
    /// there. The file appears whole, so a crash leaves no empty key behind.
    pub fn create_file(path: &Path) -> Result<Self, VaultError> {
        let key = Self::generate().map_err(|source| VaultError::io("making", path, source))?;
        let mut text = Zeroizing::new([0; KEY_BYTES.div_ceil(3) * 4 + 1]);
        let length = BASE64
            .encode_slice(key.bytes(), text.as_mut_slice())
            .map_err(|error| VaultError::io("making", path, io::Error::other(error)))?;
        text[length] = b'\n';
        files::write_new(path, &text[..=length])
            .map_err(|source| VaultError::io("making", path, source))?;
        Ok(key)
    }

    /// Tells this key from others; not secret.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.bytes.expose_secret()
    }

    fn generate() -> io::Result<Self> {
        let mut bytes = SecretBox::new(Box::new([0; KEY_BYTES]));
        OsRng
            .try_fill_bytes(bytes.expose_secret_mut())
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self::new(bytes))
    }

    /// A key whose bytes are known, as the configuration has decoded them.
    pub fn new(bytes: SecretBox<[u8; KEY_BYTES]>) -> Self {
        let mut hash = Sha256::new();
        hash.update(KEY_ID_CONTEXT);
        hash.update(bytes.expose_secret());
        let mut id = [0; 8];
        id.copy_from_slice(&hash.finalize()[..8]);
        Self {
            bytes,
            id: KeyId(id),
        }
    }

    #[cfg(test)]
    pub(super) fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self::new(SecretBox::new(Box::new(*bytes)))
    }
}

/// The keys that a vault knows: one, or two while it is given another.
#[derive(Debug, Clone)]
pub struct Keys {
    first: Arc<VaultKey>,
    second: Option<Arc<VaultKey>>,
}

impl Keys {
    /// Both open; which of them seals is the vault's word.
    pub fn new(first: VaultKey, second: Option<VaultKey>) -> Self {
        Self {
            first: Arc::new(first),
            second: second.map(Arc::new),
        }
    }

    pub(super) fn first(&self) -> &Arc<VaultKey> {
        &self.first
    }

    /// Whether there are two.
    pub(super) fn are_two(&self) -> bool {
        self.second.is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &VaultKey> {
        let second = self.second.as_deref();
        std::iter::once(self.first.as_ref()).chain(second)
    }

    pub(super) fn by_id(&self, id: KeyId) -> Option<&Arc<VaultKey>> {
        let all = std::iter::once(&self.first).chain(&self.second);
        all.into_iter().find(|key| key.id() == id)
    }

    pub(super) fn ids(&self) -> Vec<KeyId> {
        self.iter().map(VaultKey::id).collect()
    }
}

impl From<VaultKey> for Keys {
    fn from(key: VaultKey) -> Self {
        Self::new(key, None)
    }
}

/// The key, or what is wrong with the text in words that fit after its place.
fn decode(text: &[u8]) -> Result<VaultKey, &'static str> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > KEY_FILE_LIMIT {
        return Err("is too long for base64 of 32 bytes");
    }
    let mut decoded = Zeroizing::new([0; KEY_FILE_LIMIT]);
    let length = BASE64
        .decode_slice(text, decoded.as_mut_slice())
        .map_err(|_| "is not base64")?;
    if length < KEY_BYTES {
        return Err("is too short: it has to be 32 bytes, in base64");
    }
    if length > KEY_BYTES {
        return Err("is too long: it has to be 32 bytes, in base64");
    }
    let mut bytes = SecretBox::new(Box::new([0; KEY_BYTES]));
    bytes
        .expose_secret_mut()
        .copy_from_slice(&decoded[..KEY_BYTES]);
    Ok(VaultKey::new(bytes))
}

fn invalid_file(path: &Path, problem: &'static str) -> VaultError {
    VaultError::InvalidKey {
        place: format!("the vault key file {}", path.display()),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

    use super::*;

    fn problem(text: &str) -> &'static str {
        decode(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_key_reads_with_and_without_padding_and_white_space() {
        let id = VaultKey::from_bytes(&[7; 32]).id();
        let padded = STANDARD.encode([7; 32]);
        let bare = STANDARD_NO_PAD.encode([7; 32]);
        for text in [format!("{padded}\n"), format!("  {bare} "), padded, bare] {
            let key = decode(text.as_bytes()).unwrap();
            assert_eq!((key.bytes(), key.id()), (&[7; 32], id));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_says_why() {
        assert_eq!(problem(""), "is empty");
        assert_eq!(problem(" \n"), "is empty");
        assert_eq!(problem("no base64!"), "is not base64");
        assert!(problem(&STANDARD.encode([7; 31])).starts_with("is too short"));
        assert!(problem(&STANDARD.encode([7; 33])).starts_with("is too long"));
        assert!(problem(&"A".repeat(100_000)).starts_with("is too long"));
    }

    #[test]
    fn a_key_file_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        let made = VaultKey::create_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode(), 0o100_600);
        let read = VaultKey::read_file(&path).unwrap();
        assert_eq!(read.bytes(), made.bytes());
        let text = fs::read(&path).unwrap();
        assert_eq!(decode(&text).unwrap().id(), made.id());
    }

    #[test]
    fn two_key_files_hold_two_keys() {
        let folder = tempfile::tempdir().unwrap();
        let one = VaultKey::create_file(&folder.path().join("1")).unwrap();
        let two = VaultKey::create_file(&folder.path().join("2")).unwrap();
        assert_ne!(one.bytes(), two.bytes());
    }

    #[test]
    fn a_key_file_is_never_made_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        let first = VaultKey::create_file(&path).unwrap();
        assert!(VaultKey::create_file(&path).is_err());
        assert_eq!(VaultKey::read_file(&path).unwrap().id(), first.id());
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        VaultKey::create_file(&path).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let text = VaultKey::read_file(&path).unwrap_err().to_string();
            assert!(
                text.contains(&format!("chmod 600 {}", path.display())),
                "{text}"
            );
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        VaultKey::read_file(&path).unwrap();
    }

    #[test]
    fn a_key_file_with_anything_else_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let huge = "A".repeat(5000);
        for (index, text) in ["", "\n", "c2hvcnQ=", "???", huge.as_str()]
            .iter()
            .enumerate()
        {
            let path = folder.path().join(index.to_string());
            files::write_new(&path, text.as_bytes()).unwrap();
            let refused = VaultKey::read_file(&path);
            assert!(
                matches!(refused, Err(VaultError::InvalidKey { .. })),
                "{index}"
            );
        }
    }

    #[test]
    fn neither_debug_nor_errors_show_a_key() {
        let secret = STANDARD.encode([0x5a; 33]);
        let error = decode(secret.as_bytes()).unwrap_err();
        let key = VaultKey::from_bytes(&[0x5a; 32]);
        let text = format!("{error} {key:?}");
        // 0x5a is 90, and "Z" as text.
        for part in ["WlpaWlpa", "5a5a", "90, 90", "ZZZZ"] {
            assert!(!text.contains(part), "{text}");
        }
        assert!(text.contains(&key.id().to_string()), "{text}");
    }
}
