//! What is known of attachments: name, type, length, and where one lies that is not in the mail or within another. It
//! must not keep or unpack the content of an attachment; of a `winmail.dat` it reads the directory.

use mail_parser::{Encoding, Message, MessagePart, MimeHeaders, PartType};

use super::guard::HIDDEN_SUBTYPE;
use super::structure::{kind, parameter};
use super::tnef::{self, Tnef};
use super::uuencode::Embedded;
use super::{
    Attachment, MAX_ATTACHMENTS, ParsedEmail, WarningCode, Warnings, headers, parameters, text,
};

/// Type of a file of which nothing is known but its bytes.
const UNKNOWN: &str = "application/octet-stream";

/// Adds the parts `ids` of `message` to the attachments of `email`; `within` names what holds them, where that is not
/// the mail itself. Gives back what the first `winmail.dat` among them holds.
pub(super) fn list(
    message: &Message<'_>,
    ids: &[u32],
    within: Option<&str>,
    email: &mut ParsedEmail,
    warnings: &mut Warnings,
) -> Option<Tnef> {
    let mut first = None;
    for &id in ids {
        let Some(part) = message.part(id) else {
            continue;
        };
        let mut attachment = describe(message, part, warnings);
        attachment.within = within.map(str::to_owned);
        let holder = attachment.filename.clone();
        let is_tnef = matches!(
            attachment.mime_type.as_str(),
            "application/ms-tnef" | "application/vnd.ms-tnef"
        ) || holder
            .as_deref()
            .is_some_and(|name| name.eq_ignore_ascii_case("winmail.dat"));
        if !push(email, attachment, warnings) {
            break;
        }
        let Some(found) = is_tnef.then(|| tnef::read(part.contents())).flatten() else {
            continue;
        };
        if found.cut {
            warnings.add(
                WarningCode::TransferEncoding,
                "a winmail.dat ends early or holds more than is listed",
            );
        }
        let holder = holder.unwrap_or_else(|| "winmail.dat".to_owned());
        for file in &found.files {
            let mime_type = file.mime_type.as_deref().map(clean_type);
            let inner = Attachment {
                filename: file
                    .name
                    .as_deref()
                    .and_then(|name| file_name(name, warnings)),
                mime_type: mime_type
                    .filter(|full| full.contains('/'))
                    .unwrap_or_else(|| UNKNOWN.to_owned()),
                size_bytes: file.size_bytes,
                content_id: file
                    .content_id
                    .as_deref()
                    .and_then(|id| headers::field(id, warnings)),
                within: Some(holder.clone()),
                location: None,
            };
            if !push(email, inner, warnings) {
                break;
            }
        }
        first = first.or(Some(found));
    }
    first
}

/// Adds files that stood in the text.
pub(super) fn embedded(files: &[Embedded], email: &mut ParsedEmail, warnings: &mut Warnings) {
    for file in files {
        let attachment = Attachment {
            filename: file_name(&file.name, warnings),
            mime_type: UNKNOWN.to_owned(),
            size_bytes: file.size_bytes,
            content_id: None,
            within: None,
            location: None,
        };
        if !push(email, attachment, warnings) {
            return;
        }
    }
}

/// Adds one, unless there are too many.
fn push(email: &mut ParsedEmail, attachment: Attachment, warnings: &mut Warnings) -> bool {
    if email.attachments.len() == MAX_ATTACHMENTS {
        warnings.add(
            WarningCode::LimitAttachments,
            format!("more than {MAX_ATTACHMENTS} attachments"),
        );
        return false;
    }
    email.attachments.push(attachment);
    true
}

/// The name of a part: of its file, or for a message the subject.
pub(super) fn name(
    message: &Message<'_>,
    part: &MessagePart<'_>,
    warnings: &mut Warnings,
) -> Option<String> {
    let file =
        parameters::file_name(message, part, warnings).and_then(|raw| file_name(&raw, warnings));
    file.or_else(|| match &part.body {
        PartType::Message(nested) => headers::subject(nested, warnings),
        _ if is_hidden(part) => headers::subject_of(part.contents(), None, warnings),
        _ => None,
    })
}

/// Whether a part is a message that was kept from the parser.
pub(super) fn is_hidden(part: &MessagePart<'_>) -> bool {
    kind(part) == ("message", HIDDEN_SUBTYPE)
}

fn describe(message: &Message<'_>, part: &MessagePart<'_>, warnings: &mut Warnings) -> Attachment {
    let mut mime_type = media_type(part);
    let mut location = None;
    let size = match (&part.body, part.encoding) {
        (PartType::Message(_), Encoding::None) => {
            part.raw_end_offset().saturating_sub(part.raw_body_offset()) as usize
        }
        (PartType::Message(nested), _) => nested.raw_message.len(),
        _ if mime_type == "message/external-body" => {
            location = external(part).and_then(|raw| headers::field(&raw, warnings));
            parameter(part, "size")
                .and_then(|size| size.trim().parse().ok())
                .unwrap_or_default()
        }
        _ => part.contents().len(),
    };
    if matches!(part.body, PartType::Message(_)) || is_hidden(part) {
        "message/rfc822".clone_into(&mut mime_type);
    }
    Attachment {
        filename: name(message, part, warnings),
        mime_type,
        size_bytes: size as u64,
        content_id: part
            .content_id()
            .and_then(|raw| headers::field(raw, warnings)),
        within: None,
        location,
    }
}

/// Where the content of a `message/external-body` lies (RFC 2046, RFC 2017), as a URL where its kind has one.
fn external(part: &MessagePart<'_>) -> Option<String> {
    let access = parameter(part, "access-type")?.to_ascii_lowercase();
    let given = |name: &str| parameter(part, name).unwrap_or_default().trim();
    Some(match access.as_str() {
        // A long URL is folded, and blanks are no part of it.
        "url" => given("url").split_whitespace().collect(),
        "ftp" | "anon-ftp" | "tftp" => {
            let scheme = if access == "tftp" { "tftp" } else { "ftp" };
            let folder = given("directory").trim_matches('/');
            let slash = if folder.is_empty() { "" } else { "/" };
            format!(
                "{scheme}://{}/{folder}{slash}{}",
                given("site"),
                given("name").trim_start_matches('/')
            )
        }
        "mail-server" => format!("mailto:{}", given("server")),
        _ => format!("{access} {}", given("name")).trim_end().to_owned(),
    })
}

fn media_type(part: &MessagePart<'_>) -> String {
    let fallback = match part.body {
        PartType::Text(_) => "text/plain",
        PartType::Html(_) => "text/html",
        _ => UNKNOWN,
    };
    let (ctype, subtype) = kind(part);
    let full = clean_type(&format!(
        "{}/{}",
        text::prefix(ctype, 100),
        text::prefix(subtype, 100)
    ));
    if full.starts_with('/') || full.ends_with('/') {
        fallback.to_owned()
    } else {
        full
    }
}

fn clean_type(raw: &str) -> String {
    let mut full = text::prefix(raw, 201).to_ascii_lowercase();
    full.retain(|ch| ch.is_ascii_graphic());
    full
}

/// The last step of a path, cleaned: a file name must not say where a file goes.
fn file_name(raw: &str, warnings: &mut Warnings) -> Option<String> {
    let cleaned = headers::field(raw, warnings)?;
    let name = cleaned
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default()
        .trim();
    if name.is_empty() || name == "." || name == ".." {
        None
    } else {
        Some(name.to_owned())
    }
}
