//! What protects a message: signatures and encryption of PGP (RFC 3156, RFC 4880) and S/MIME (RFC 8551). It says what
//! a message claims to be; nothing is verified and nothing is decrypted.

use std::borrow::Cow;

use mail_parser::{Message, MessagePart};
use serde::Serialize;

use super::structure::{kind, parameter};

/// Most bytes of a CMS object in which its content type is looked for.
const CMS_HEAD_BYTES: usize = 40;
/// Longest line of PGP armour, in bytes (RFC 4880 asks for 76 at most).
const MAX_ARMOUR_LINE: usize = 130;

/// A way a message is protected. The snake_case names are part of the stored record and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// A `multipart/signed` with a PGP signature.
    PgpMimeSigned,
    /// A `multipart/encrypted` of PGP.
    PgpMimeEncrypted,
    /// Text within a PGP signature.
    PgpInlineSigned,
    /// A PGP message within the text.
    PgpInlineEncrypted,
    /// A `multipart/signed` with an S/MIME signature.
    SmimeSigned,
    /// A signed S/MIME object that holds the message in itself.
    SmimeOpaqueSigned,
    /// An encrypted S/MIME object.
    SmimeEncrypted,
    /// A compressed S/MIME object.
    SmimeCompressed,
    /// Certificates in an S/MIME object.
    SmimeCertificates,
    /// A `multipart/signed` of another protocol.
    Signed,
    /// A `multipart/encrypted` of another protocol.
    Encrypted,
    /// Mail under Microsoft's rights management, which only its servers open.
    RightsManaged,
}

/// How the parts of a message protect it; each kind once, in the order of the parts.
pub(super) fn of_parts(message: &Message<'_>) -> Vec<Protection> {
    let mut found = Vec::new();
    for part in &message.parts {
        if let Some(protection) = of_part(part) {
            add(&mut found, protection);
        }
    }
    found
}

/// Puts a kind into a list once.
pub(super) fn add(found: &mut Vec<Protection>, protection: Protection) {
    if !found.contains(&protection) {
        found.push(protection);
    }
}

fn of_part(part: &MessagePart<'_>) -> Option<Protection> {
    let protocol = parameter(part, "protocol")
        .unwrap_or_default()
        .to_ascii_lowercase();
    match kind(part) {
        ("multipart", "signed") if protocol.contains("pgp-signature") => {
            Some(Protection::PgpMimeSigned)
        }
        ("multipart", "signed") if protocol.contains("pkcs7-signature") => {
            Some(Protection::SmimeSigned)
        }
        ("multipart", "signed") => Some(Protection::Signed),
        ("multipart", "encrypted") if protocol.contains("pgp-encrypted") => {
            Some(Protection::PgpMimeEncrypted)
        }
        ("multipart", "encrypted") => Some(Protection::Encrypted),
        // Servers are known to make multipart/encrypted a multipart/mixed.
        ("application", "pgp-encrypted") => Some(Protection::PgpMimeEncrypted),
        ("application", "pkcs7-mime" | "x-pkcs7-mime") => Some(smime(part)),
        ("application", "x-microsoft-rpmsg-message") => Some(Protection::RightsManaged),
        _ => None,
    }
}

fn smime(part: &MessagePart<'_>) -> Protection {
    match parameter(part, "smime-type")
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "signed-data" | "signed-receipt" => return Protection::SmimeOpaqueSigned,
        "enveloped-data" | "authenveloped-data" => return Protection::SmimeEncrypted,
        "compressed-data" => return Protection::SmimeCompressed,
        "certs-only" => return Protection::SmimeCertificates,
        _ => {}
    }
    let head = part.contents();
    let head = &head[..head.len().min(CMS_HEAD_BYTES)];
    let holds = |oid: &[u8]| head.windows(oid.len()).any(|window| window == oid);
    // The object identifiers 1.2.840.113549.1.7.2 (signed data) and 1.2.840.113549.1.9.16.1.9 (compressed data).
    if holds(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2]) {
        Protection::SmimeOpaqueSigned
    } else if holds(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 1, 9]) {
        Protection::SmimeCompressed
    } else {
        Protection::SmimeEncrypted
    }
}

/// Text without the armour of PGP: what was signed stays as it was written, signatures go, and one line stands for
/// an encrypted message or a key. Kinds that were seen are added to `found`.
pub(super) fn without_armour<'a>(source: &'a str, found: &mut Vec<Protection>) -> Cow<'a, str> {
    if !source.contains("-----BEGIN PGP ") {
        return Cow::Borrowed(source);
    }
    let lines: Vec<&str> = source.split_inclusive('\n').collect();
    let last_end = lines
        .iter()
        .rposition(|line| line.starts_with("-----END PGP "))
        .unwrap_or_default();
    let mut out = String::with_capacity(source.len());
    let mut in_signed = false;
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index];
        index += 1;
        // Armour without an end is text: it may have been cut anywhere.
        let name = if index <= last_end {
            line.trim_end()
        } else {
            ""
        };
        match name {
            "-----BEGIN PGP SIGNED MESSAGE-----" => {
                add(found, Protection::PgpInlineSigned);
                in_signed = true;
                // Armour headers, and the empty line that ends them.
                while index < last_end && is_armour_header(lines[index]) {
                    index += 1;
                    if lines[index - 1].trim().is_empty() {
                        break;
                    }
                }
            }
            "-----BEGIN PGP SIGNATURE-----" => {
                in_signed = false;
                armour(&lines, &mut index);
            }
            "-----BEGIN PGP MESSAGE-----" => {
                add(found, Protection::PgpInlineEncrypted);
                let bytes = armour(&lines, &mut index);
                out.push_str(&format!("[PGP message, {bytes} bytes of armour]\n"));
            }
            "-----BEGIN PGP PUBLIC KEY BLOCK-----" => {
                let bytes = armour(&lines, &mut index);
                out.push_str(&format!("[PGP public key, {bytes} bytes of armour]\n"));
            }
            _ if in_signed => out.push_str(line.strip_prefix("- ").unwrap_or(line)),
            _ => out.push_str(line),
        }
    }
    Cow::Owned(out)
}

/// Moves `index` past the lines of an armour, its last line included, and counts their bytes. It stops before a line
/// that is no armour: the end was lost, and what follows is text.
fn armour(lines: &[&str], index: &mut usize) -> usize {
    let mut bytes = 0;
    while *index < lines.len() && is_armour(lines[*index]) {
        let content = lines[*index].trim_end();
        *index += 1;
        if content.starts_with("-----END PGP ") {
            break;
        }
        bytes += content.len();
    }
    bytes
}

fn is_armour(line: &str) -> bool {
    let content = line.trim_end();
    if content.starts_with("-----END PGP ") {
        return true;
    }
    let data = content
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    content.len() <= MAX_ARMOUR_LINE && (data || is_armour_header(line))
}

/// `Hash: SHA256`, `Version: …`, or the empty line after them.
fn is_armour_header(line: &str) -> bool {
    let content = line.trim_end();
    content.is_empty()
        || [
            "Hash: ",
            "Version: ",
            "Comment: ",
            "MessageID: ",
            "Charset: ",
            "Version:",
            "Comment:",
            "NotDashEscaped:",
        ]
        .iter()
        .any(|name| content.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(source: &str) -> (String, Vec<Protection>) {
        let mut found = Vec::new();
        let text = without_armour(source, &mut found).into_owned();
        (text, found)
    }

    #[test]
    fn signed_text_stays_and_its_armour_goes() {
        let source = "Before\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nHello,\n- -- \nAnn\n\
                      -----BEGIN PGP SIGNATURE-----\nVersion: x\n\niQEz\n=abcd\n-----END PGP SIGNATURE-----\n- after\n";
        assert_eq!(
            stripped(source),
            (
                "Before\nHello,\n-- \nAnn\n- after\n".to_owned(),
                vec![Protection::PgpInlineSigned]
            )
        );
    }

    #[test]
    fn a_line_stands_for_what_is_encrypted() {
        let source = "See:\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhQEM\r\n=abcd\r\n-----END PGP MESSAGE-----\r\nBye\r\n";
        assert_eq!(
            stripped(source),
            (
                "See:\r\n[PGP message, 9 bytes of armour]\nBye\r\n".to_owned(),
                vec![Protection::PgpInlineEncrypted]
            )
        );
    }

    #[test]
    fn text_after_armour_without_an_end_is_kept() {
        let cut = "-----BEGIN PGP SIGNATURE-----\nabcd\nwords\n";
        assert_eq!(stripped(cut), (cut.to_owned(), Vec::new()));
        let lost = format!("{cut}These are words.\n-----END PGP MESSAGE-----\n");
        assert!(stripped(&lost).0.starts_with("These are words.\n"));
        let quoted = "> -----BEGIN PGP MESSAGE-----\n> abcd\n";
        assert_eq!(stripped(quoted), (quoted.to_owned(), Vec::new()));
    }
}
