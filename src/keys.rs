//! API keys: `nk_`, 160 random bits in base62, and a checksum that tells a typing mistake, or a
//! guess, from a key without asking the database. And what is kept for who holds a key, so that it is
//! worth nothing to anybody else.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rand::{TryRngCore, rngs::OsRng};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Begins every key, so that leaked ones can be searched for.
pub const PREFIX: &str = "nk_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 27 characters of base62 hold 160 bits.
const RANDOM_CHARS: usize = 27;
/// Bytes of an XChaCha20 nonce.
const NONCE: usize = 24;
/// Six characters of base62 hold the 32 bits of a CRC.
const CHECKSUM_CHARS: usize = 6;

/// A key that was just made. It is shown once and not kept.
pub struct Key(SecretString);

impl Key {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Self {
        let mut bytes = [0_u8; 20];
        // Without randomness there can be no key; the operating system gives it or the process
        // cannot go on.
        if let Err(error) = OsRng.try_fill_bytes(&mut bytes) {
            std::panic::panic_any(format!("the operating system gives no randomness: {error}"));
        }
        let random = base62(&bytes, RANDOM_CHARS);
        Self(format!("{PREFIX}{random}{}", checksum(&random)).into())
    }

    /// The key itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The key as a secret.
    pub fn into_secret(self) -> SecretString {
        self.0
    }
}

/// Whether `text` can be a key at all.
pub fn is_well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else {
        return false;
    };
    if rest.len() != RANDOM_CHARS + CHECKSUM_CHARS || !rest.is_ascii() {
        return false;
    }
    let (random, sum) = rest.split_at(RANDOM_CHARS);
    checksum(random) == sum
}

/// What is kept of a key: lower-case hex SHA-256. A key holds too much randomness for a slow hash
/// to add anything.
pub fn hash(text: &str) -> String {
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

/// Tells what the holder of a key has sent from what else they may send: lower-case hex SHA-256 over
/// a label, the key and the bytes, with zero bytes between. Without the key it tells nothing, not
/// even of bytes that can be guessed.
pub fn fingerprint(key: &str, bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in ["nucleus fingerprint", key] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(bytes);
    format!("{:x}", hash.finalize())
}

/// Why something was not sealed, or not opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
    /// It is longer than the cipher allows.
    #[error("too long to be sealed")]
    TooLong,
    /// It is not what was sealed with this key under this name.
    #[error("the seal is broken")]
    Broken,
}

/// Seals `bytes` so that who holds `key` can read them, under `name`: 24 bytes of nonce and what
/// XChaCha20-Poly1305 makes of them.
pub fn seal(key: &str, name: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = XNonce::default();
    OsRng
        .try_fill_bytes(&mut nonce)
        .map_err(|_| SealError::NoRandomness)?;
    let payload = Payload {
        msg: bytes,
        aad: name,
    };
    let sealed = sealing(key)
        .encrypt(&nonce, payload)
        .map_err(|_| SealError::TooLong)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what was sealed with `key` under `name`.
pub fn open(key: &str, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(SealError::Broken)?;
    let payload = Payload {
        msg: sealed,
        aad: name,
    };
    sealing(key)
        .decrypt(XNonce::from_slice(nonce), payload)
        .map_err(|_| SealError::Broken)
}

/// The cipher under a key of its own, so that a fingerprint is no part of it.
fn sealing(key: &str) -> XChaCha20Poly1305 {
    let mut hash = Sha256::new();
    hash.update("nucleus seal\0");
    hash.update(key);
    XChaCha20Poly1305::new(&hash.finalize())
}

fn checksum(random: &str) -> String {
    base62(
        &crc32fast::hash(random.as_bytes()).to_be_bytes(),
        CHECKSUM_CHARS,
    )
}

/// A big-endian number in base 62, padded to `chars` digits.
fn base62(bytes: &[u8], chars: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; chars];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_well_formed_and_differ() {
        let (one, other) = (Key::generate(), Key::generate());
        assert!(is_well_formed(one.expose()) && is_well_formed(other.expose()));
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), 36);
    }

    #[test]
    fn a_changed_character_is_noticed() {
        let key = Key::generate();
        for index in 0..key.expose().len() {
            let mut changed = key.expose().as_bytes().to_vec();
            changed[index] = if changed[index] == b'x' { b'y' } else { b'x' };
            assert!(
                !is_well_formed(std::str::from_utf8(&changed).unwrap()),
                "at {index}"
            );
        }
        assert!(!is_well_formed("") && !is_well_formed("nk_"));
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_name_alone() {
        let sealed = seal("a key", b"a name", b"an answer").unwrap();
        assert_eq!(open("a key", b"a name", &sealed).unwrap(), b"an answer");
        assert_ne!(seal("a key", b"a name", b"an answer").unwrap(), sealed);
        for (key, name, sealed) in [
            ("another", b"a name".as_slice(), &sealed[..]),
            ("a key", b"another", &sealed),
            ("a key", b"a name", &sealed[..sealed.len() - 1]),
            ("a key", b"a name", &sealed[1..]),
            ("a key", b"a name", &sealed[..10]),
            ("a key", b"a name", b""),
        ] {
            assert!(open(key, name, sealed).is_err());
        }
    }

    #[test]
    fn a_fingerprint_is_of_key_and_bytes() {
        let fingerprints = [
            fingerprint("key", b"bytes"),
            fingerprint("key", b"byte"),
            fingerprint("keyb", b"ytes"),
            fingerprint("ke", b"ybytes"),
            hash("bytes"),
            hash("keybytes"),
        ];
        let different: std::collections::BTreeSet<_> = fingerprints.iter().collect();
        assert_eq!(different.len(), fingerprints.len());
        assert_eq!(fingerprint("key", b"bytes"), fingerprints[0]);
    }

    #[test]
    fn base62_keeps_every_bit() {
        assert_eq!(base62(&[0xff; 4], 6), "4gfFC3");
        assert_eq!(base62(&[0, 0, 0, 61], 6), "00000z");
    }
}
