//! The directory of a `winmail.dat` (TNEF, MS-OXTNEF): names, sizes and types of the files in it, and the text of its
//! message. It follows lengths within the bytes it was given, copies names and texts only, and unpacks nothing.

use mail_parser::decoders::charsets::map::charset_decoder;

use super::{MAX_ATTACHMENTS, MAX_TEXT_BYTES};

/// First four bytes of a TNEF stream, little-endian.
const SIGNATURE: u32 = 0x223e_9f78;
/// Most properties of one set that are looked at.
const MAX_PROPERTIES: u32 = 4_096;

// Attributes (MS-OXTNEF 2.1.3.2).
const ATT_BODY: u32 = 0x0002_800c;
const ATT_MESSAGE_PROPERTIES: u32 = 0x0006_9003;
const ATT_OEM_CODE_PAGE: u32 = 0x0006_9007;
const ATT_ATTACH_START: u32 = 0x0006_9002;
const ATT_ATTACH_TITLE: u32 = 0x0001_8010;
const ATT_ATTACH_DATA: u32 = 0x0006_800f;
const ATT_ATTACH_PROPERTIES: u32 = 0x0006_9005;

// Properties (MS-OXPROPS).
const BODY: u16 = 0x1000;
const BODY_HTML: u16 = 0x1013;
const DISPLAY_NAME: u16 = 0x3001;
const ATTACH_DATA: u16 = 0x3701;
const ATTACH_FILENAME: u16 = 0x3704;
const ATTACH_LONG_FILENAME: u16 = 0x3707;
const ATTACH_MIME_TAG: u16 = 0x370e;
const ATTACH_CONTENT_ID: u16 = 0x3712;

/// What a `winmail.dat` holds.
#[derive(Debug, Default)]
pub(super) struct Tnef {
    /// The message as plain text.
    pub(super) text: Option<String>,
    /// The message as HTML.
    pub(super) html: Option<String>,
    /// The files.
    pub(super) files: Vec<File>,
    /// Whether the stream ended early or had more files than are kept.
    pub(super) cut: bool,
}

/// One file of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: Option<String>,
    pub(super) mime_type: Option<String>,
    pub(super) content_id: Option<String>,
    pub(super) size_bytes: u64,
}

/// Reads a stream; none where it is no TNEF.
pub(super) fn read(bytes: &[u8]) -> Option<Tnef> {
    let mut stream = Stream(bytes);
    if stream.u32()? != SIGNATURE {
        return None;
    }
    // The key, which nothing refers to.
    stream.take(2)?;
    let mut found = Tnef::default();
    let mut code_page = 1252;
    while !stream.0.is_empty() {
        let Some((id, data)) = attribute(&mut stream) else {
            found.cut = true;
            break;
        };
        match id {
            ATT_OEM_CODE_PAGE => code_page = Stream(data).u32().unwrap_or(code_page),
            ATT_BODY => found.text = found.text.take().or_else(|| text(data, code_page)),
            ATT_MESSAGE_PROPERTIES => {
                let whole = properties(data, |id, kind, value| match id {
                    BODY => found.text = string(kind, value, code_page),
                    BODY_HTML => found.html = text(value, code_page),
                    _ => {}
                });
                found.cut |= whole.is_none();
            }
            ATT_ATTACH_START => {
                if found.files.len() == MAX_ATTACHMENTS {
                    found.cut = true;
                    break;
                }
                found.files.push(File::default());
            }
            _ => {
                let Some(file) = found.files.last_mut() else {
                    continue;
                };
                found.cut |= file_attribute(file, id, data, code_page).is_none();
            }
        }
    }
    Some(found)
}

/// The next attribute: a level, an id, a length, the data and a checksum.
fn attribute<'a>(stream: &mut Stream<'a>) -> Option<(u32, &'a [u8])> {
    stream.take(1)?;
    let id = stream.u32()?;
    let length = stream.u32()?;
    let data = stream.take(length as usize)?;
    stream.take(2)?;
    Some((id, data))
}

fn file_attribute(file: &mut File, id: u32, data: &[u8], code_page: u32) -> Option<()> {
    match id {
        ATT_ATTACH_TITLE => file.name = file.name.take().or_else(|| text(data, code_page)),
        ATT_ATTACH_DATA => file.size_bytes = data.len() as u64,
        ATT_ATTACH_PROPERTIES => {
            let mut long = false;
            return properties(data, |id, kind, value| match id {
                ATTACH_LONG_FILENAME => {
                    file.name = string(kind, value, code_page);
                    long = true;
                }
                DISPLAY_NAME | ATTACH_FILENAME if !long && file.name.is_none() => {
                    file.name = string(kind, value, code_page);
                }
                ATTACH_MIME_TAG => file.mime_type = string(kind, value, code_page),
                ATTACH_CONTENT_ID => file.content_id = string(kind, value, code_page),
                ATTACH_DATA => file.size_bytes = file.size_bytes.max(value.len() as u64),
                _ => {}
            });
        }
        _ => {}
    }
    Some(())
}

/// Shows `see` each property of a set that has one value: its id, type and bytes. None where the set is broken.
fn properties(data: &[u8], mut see: impl FnMut(u16, u16, &[u8])) -> Option<()> {
    let mut stream = Stream(data);
    let count = stream.u32()?.min(MAX_PROPERTIES);
    for _ in 0..count {
        let kind = stream.u16()?;
        let id = stream.u16()?;
        if id >= 0x8000 {
            // A named property: a GUID, and a number or a name.
            stream.take(16)?;
            if stream.u32()? == 0 {
                stream.take(4)?;
            } else {
                stream.padded()?;
            }
        }
        let many = kind & 0x1000 != 0;
        let kind = kind & !0x1000;
        let fixed = match kind {
            // Numbers, errors and booleans; small ones are padded to four bytes.
            0x02 | 0x03 | 0x04 | 0x0a | 0x0b => Some(4),
            0x05 | 0x06 | 0x07 | 0x14 | 0x40 => Some(8),
            0x48 => Some(16),
            // Objects, strings and bytes come with their length.
            0x0d | 0x1e | 0x1f | 0x102 => None,
            _ => return None,
        };
        let values = if many || fixed.is_none() {
            stream.u32()?
        } else {
            1
        };
        for number in 0..values {
            let value = match fixed {
                Some(length) => stream.take(length)?,
                None => stream.padded()?,
            };
            if number == 0 {
                see(id, kind, value);
            }
        }
    }
    Some(())
}

/// A string property: 0x1f is UTF-16, 0x1e is in the code page.
fn string(kind: u16, value: &[u8], code_page: u32) -> Option<String> {
    if kind != 0x1f {
        return text(value, code_page);
    }
    let mut units = Vec::with_capacity(value.len().min(MAX_TEXT_BYTES) / 2);
    for pair in value.chunks_exact(2).take(MAX_TEXT_BYTES / 2) {
        units.push(u16::from_le_bytes([pair[0], pair[1]]));
    }
    trimmed(&String::from_utf16_lossy(&units))
}

/// Bytes of a code page, up to the limit of a text.
fn text(value: &[u8], code_page: u32) -> Option<String> {
    let value = &value[..value.len().min(MAX_TEXT_BYTES)];
    if let Ok(text) = std::str::from_utf8(value) {
        return trimmed(text);
    }
    let named = [format!("windows-{code_page}"), format!("cp{code_page}")];
    let decoder = named
        .iter()
        .find_map(|name| charset_decoder(name.as_bytes()))
        .or_else(|| charset_decoder(b"windows-1252"));
    match decoder {
        Some(decode) => trimmed(&decode(value)),
        None => trimmed(&String::from_utf8_lossy(value)),
    }
}

fn trimmed(text: &str) -> Option<String> {
    let text = text.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// The bytes that are left.
struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// A length, that many bytes, and what fills them up to a multiple of four.
    fn padded(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let value = self.take(length)?;
        let fill = length.next_multiple_of(4) - length;
        self.take(fill.min(self.0.len()))?;
        Some(value)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, level: u8, id: u32, data: &[u8]) {
        out.push(level);
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(data);
        let sum = data
            .iter()
            .fold(0_u16, |sum, &byte| sum.wrapping_add(u16::from(byte)));
        out.extend_from_slice(&sum.to_le_bytes());
    }

    fn property(out: &mut Vec<u8>, kind: u16, id: u16, value: &[u8]) {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&1_u32.to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    /// A stream with a text and two files, as Outlook would write it.
    pub(in super::super) fn sample() -> Vec<u8> {
        let mut out = SIGNATURE.to_le_bytes().to_vec();
        out.extend_from_slice(&[1, 0]);
        put(&mut out, 1, ATT_OEM_CODE_PAGE, &[0xe3, 4, 0, 0, 0, 0, 0, 0]);
        put(&mut out, 1, ATT_BODY, b"\xcf\xf0\xe8\xe2\xe5\xf2\0");
        put(&mut out, 2, ATT_ATTACH_START, &[0; 14]);
        put(&mut out, 2, ATT_ATTACH_TITLE, b"REPORT~1.PDF\0");
        put(&mut out, 2, ATT_ATTACH_DATA, b"%PDF-1.4");
        let mut set = 3_u32.to_le_bytes().to_vec();
        set.extend_from_slice(&[3, 0, 5, 0x37, 1, 0, 0, 0]);
        let long: Vec<u8> = "Report é.pdf\0"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        property(&mut set, 0x1f, ATTACH_LONG_FILENAME, &long);
        property(&mut set, 0x1e, ATTACH_MIME_TAG, b"application/pdf\0");
        put(&mut out, 2, ATT_ATTACH_PROPERTIES, &set);
        put(&mut out, 2, ATT_ATTACH_START, &[0; 14]);
        put(&mut out, 2, ATT_ATTACH_TITLE, b"b.txt\0");
        put(&mut out, 2, ATT_ATTACH_DATA, b"abc");
        out
    }

    #[test]
    fn the_directory_and_the_text_are_read() {
        let found = read(&sample()).unwrap();
        assert_eq!(found.text.as_deref(), Some("Привет"));
        assert_eq!(
            found.files,
            [
                File {
                    name: Some("Report é.pdf".into()),
                    mime_type: Some("application/pdf".into()),
                    content_id: None,
                    size_bytes: 8
                },
                File {
                    name: Some("b.txt".into()),
                    size_bytes: 3,
                    ..File::default()
                }
            ]
        );
        assert!(!found.cut);
    }

    #[test]
    fn a_stream_that_ends_anywhere_is_read_so_far() {
        let whole = sample();
        let start = whole.len() - 14;
        for length in 0..whole.len() {
            let found = read(&whole[..length]);
            assert_eq!(found.is_some(), length >= 6, "{length}");
            if length > start {
                assert!(found.unwrap().cut, "{length}");
            }
        }
        assert!(read(b"no tnef").is_none());
    }

    #[test]
    fn lengths_that_lie_and_files_without_number_are_bounded() {
        let mut out = SIGNATURE.to_le_bytes().to_vec();
        out.extend_from_slice(&[1, 0]);
        for _ in 0..MAX_ATTACHMENTS + 5 {
            put(&mut out, 2, ATT_ATTACH_START, &[]);
        }
        let found = read(&out).unwrap();
        assert_eq!((found.files.len(), found.cut), (MAX_ATTACHMENTS, true));
        let mut lie = SIGNATURE.to_le_bytes().to_vec();
        lie.extend_from_slice(&[1, 0, 1]);
        lie.extend_from_slice(&ATT_BODY.to_le_bytes());
        lie.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&lie).unwrap().cut);
        let mut set = u32::MAX.to_le_bytes().to_vec();
        set.extend_from_slice(&[0x1e, 0, 1, 0x30, 0xff, 0xff, 0xff, 0xff]);
        assert!(properties(&set, |_, _, _| {}).is_none());
    }
}
