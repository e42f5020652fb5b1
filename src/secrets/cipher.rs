//! How a secret version is sealed: XChaCha20-Poly1305, bound to its name, its number and its key.
//!
//! The format is final; another one gets another format byte. A sealed version is
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `NUCV` |
//! | 1 | format, 1 |
//! | 8 | key id: the first bytes of SHA-256 over `nucleus vault key id`, a zero byte and the key |
//! | 24 | nonce, random |
//! | rest | ciphertext, as long as the value, and the tag of 16 bytes |
//!
//! The associated data is the first 13 bytes (magic, format, key id), the version's number in 8
//! bytes, most significant first, and the secret's name. So a version that is moved to another name
//! or number, or says another key, does not open. It reads and writes no file.

use std::fmt;

use chacha20poly1305::{
    AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce,
    aead::{OsRng, rand_core::RngCore},
};
use secrecy::ExposeSecretMut;

use super::{SecretBytes, SecretName, key::VaultKey};

const MAGIC: &[u8; 4] = b"NUCV";
const FORMAT: u8 = 1;
const HEADER: usize = 13;
const NONCE: usize = 24;
const TAG: usize = 16;

/// By how many bytes a sealed version is longer than its value.
pub const OVERHEAD: usize = HEADER + NONCE + TAG;

/// Tells keys apart without giving anything away about them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum CipherError {
    /// It was sealed with a key that is not among those given.
    #[error("sealed with key {sealed_with}, which is not held")]
    WrongKey {
        /// The key it was sealed with.
        sealed_with: KeyId,
    },
    /// It is not what was sealed under this name and number.
    #[error("{0}")]
    Corrupt(&'static str),
    /// The value is too long for the cipher.
    #[error("too long to be sealed")]
    TooLong,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// Seals `value` as version `version` of `name`.
pub fn seal(
    key: &VaultKey,
    name: &SecretName,
    version: u64,
    value: &[u8],
) -> Result<Vec<u8>, CipherError> {
    let mut nonce = XNonce::default();
    OsRng
        .try_fill_bytes(&mut nonce)
        .map_err(|_| CipherError::NoRandomness)?;
    // All the room at once: the value is in here until it is encrypted in place, and a vector that
    // grows would leave a copy of it behind.
    let mut sealed = Vec::with_capacity(value.len() + OVERHEAD);
    sealed.extend_from_slice(MAGIC);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&key.id().0);
    let bound = associated_data(&sealed, name, version);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(value);
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    let tag = cipher
        .encrypt_in_place_detached(&nonce, &bound, &mut sealed[HEADER + NONCE..])
        .map_err(|_| CipherError::TooLong)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what was sealed as version `version` of `name` with one of `keys`.
pub fn open<'a>(
    keys: impl IntoIterator<Item = &'a VaultKey>,
    name: &SecretName,
    version: u64,
    sealed: &[u8],
) -> Result<SecretBytes, CipherError> {
    let sealed_with = key_id(sealed)?;
    if sealed.len() < OVERHEAD {
        return Err(CipherError::Corrupt("it is cut short"));
    }
    let key = keys
        .into_iter()
        .find(|key| key.id() == sealed_with)
        .ok_or(CipherError::WrongKey { sealed_with })?;
    let (header, rest) = sealed.split_at(HEADER);
    let (nonce, rest) = rest.split_at(NONCE);
    let (ciphertext, tag) = rest.split_at(rest.len() - TAG);
    let bound = associated_data(header, name, version);
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    let mut value = SecretBytes::from(ciphertext.to_vec());
    cipher
        .decrypt_in_place_detached(
            XNonce::from_slice(nonce),
            &bound,
            value.expose_secret_mut(),
            Tag::from_slice(tag),
        )
        .map_err(|_| {
            CipherError::Corrupt(
                "its seal is broken, or it was sealed under another name or number",
            )
        })?;
    Ok(value)
}

/// The key that a sealed version names in its header; nothing else about it is checked.
pub fn key_id(sealed: &[u8]) -> Result<KeyId, CipherError> {
    if sealed.len() < HEADER {
        return Err(CipherError::Corrupt("it is cut short"));
    }
    if &sealed[..4] != MAGIC {
        return Err(CipherError::Corrupt("it is not a sealed secret"));
    }
    if sealed[4] != FORMAT {
        return Err(CipherError::Corrupt(
            "its format is not known to this program",
        ));
    }
    let mut id = [0; 8];
    id.copy_from_slice(&sealed[5..HEADER]);
    Ok(KeyId(id))
}

/// The parts of fixed length come first, so that no two triples make the same bytes.
fn associated_data(header: &[u8], name: &SecretName, version: u64) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(name.as_str().as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const VALUE: &[u8] = b"1//refresh-token";

    fn key(byte: u8) -> VaultKey {
        VaultKey::from_bytes(&[byte; 32])
    }

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_sealed_opens() {
        for length in [0, 1, 63, 64, 65, 64 * 1024] {
            let value = vec![7; length];
            let sealed = seal(&key(1), &name("a"), 3, &value).unwrap();
            assert_eq!(sealed.len(), length + OVERHEAD);
            let opened = open(&[key(2), key(1)], &name("a"), 3, &sealed).unwrap();
            assert_eq!(opened.expose_secret(), value);
        }
    }

    #[test]
    fn the_format_is_the_documented_one() {
        // Made apart from this program: ChaCha20-Poly1305 of OpenSSL under a key from HChaCha20, with
        // the nonce 0, 1, … 23.
        let sealed = hex(FIXTURE);
        let opened = open(&[key(0x42)], &name("some-secret"), 3, &sealed).unwrap();
        assert_eq!(opened.expose_secret(), VALUE);
    }

    #[test]
    fn every_sealing_has_another_nonce_and_hides_the_value() {
        let one = seal(&key(1), &name("a"), 1, VALUE).unwrap();
        let two = seal(&key(1), &name("a"), 1, VALUE).unwrap();
        assert_ne!(one[HEADER..HEADER + NONCE], two[HEADER..HEADER + NONCE]);
        assert_ne!(one[HEADER + NONCE..], two[HEADER + NONCE..]);
        assert!(!one.windows(8).any(|window| window == &VALUE[..8]));
    }

    #[test]
    fn another_name_or_number_does_not_open_it() {
        let sealed = seal(&key(1), &name("a1"), 1, VALUE).unwrap();
        for (text, version) in [("a2", 1), ("a", 1), ("a11", 1), ("a1", 2), ("a1", 0)] {
            let refused = open(&[key(1)], &name(text), version, &sealed);
            assert!(
                matches!(refused, Err(CipherError::Corrupt(_))),
                "{text} {version}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let sealed = seal(&key(1), &name("a"), 1, VALUE).unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[index] ^= 1 << bit;
                match open(&[key(1)], &name("a"), 1, &changed) {
                    Err(CipherError::WrongKey { .. }) => assert!((5..HEADER).contains(&index)),
                    Err(CipherError::Corrupt(_)) => assert!(!(5..HEADER).contains(&index)),
                    other => panic!("byte {index}, bit {bit}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn every_truncation_and_every_addition_is_refused() {
        let sealed = seal(&key(1), &name("a"), 1, VALUE).unwrap();
        for length in 0..sealed.len() {
            let refused = open(&[key(1)], &name("a"), 1, &sealed[..length]);
            assert!(matches!(refused, Err(CipherError::Corrupt(_))), "{length}");
        }
        let mut longer = sealed;
        longer.push(0);
        assert!(open(&[key(1)], &name("a"), 1, &longer).is_err());
    }

    #[test]
    fn a_header_that_names_another_held_key_is_refused() {
        let mut sealed = seal(&key(1), &name("a"), 1, VALUE).unwrap();
        sealed[5..HEADER].copy_from_slice(&key(2).id().0);
        let refused = open(&[key(1), key(2)], &name("a"), 1, &sealed);
        assert!(matches!(refused, Err(CipherError::Corrupt(_))));
    }

    #[test]
    fn a_wrong_key_is_told_apart_and_named() {
        let sealed = seal(&key(1), &name("a"), 1, VALUE).unwrap();
        let Err(CipherError::WrongKey { sealed_with }) = open(&[key(2)], &name("a"), 1, &sealed)
        else {
            panic!("another key opened it");
        };
        assert_eq!(sealed_with, key(1).id());
        assert_ne!(key(1).id(), key(2).id());
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap())
            .collect()
    }

    const FIXTURE: &str = "4e554356014df00177dfbb789a000102030405060708090a0b0c0d0e0f10
        11121314151617bdd3ab95a2c7b5a5810e89326d539bd090c2bad7509daf
        e3de3493193d4b865c";
}
