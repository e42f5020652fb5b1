//! API keys: `nk_`, 160 random bits in base62, and a checksum that tells a typing mistake, or a
//! guess, from a key without asking the database.

use rand::{TryRngCore, rngs::OsRng};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Begins every key, so that leaked ones can be searched for.
pub const PREFIX: &str = "nk_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 27 characters of base62 hold 160 bits.
const RANDOM_CHARS: usize = 27;
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
    fn base62_keeps_every_bit() {
        assert_eq!(base62(&[0xff; 4], 6), "4gfFC3");
        assert_eq!(base62(&[0, 0, 0, 61], 6), "00000z");
    }
}
