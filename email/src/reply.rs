//! Tells what a person wrote from what they quoted and from their signature. It works on finished text, line by
//! line, and only marks places: no text is changed.

/// Lines an attribution such as "On …, … wrote:" may be wrapped over.
const MAX_ATTRIBUTION_LINES: usize = 4;
/// Longest attribution, in bytes.
const MAX_ATTRIBUTION_BYTES: usize = 400;
/// Lines of a header block that are looked at after its first.
const HEADER_BLOCK_LINES: usize = 6;
/// Longest signature without a delimiter of its own ("Sent from my …"), in bytes.
const MAX_DEVICE_LINE_BYTES: usize = 120;

/// How attributions end, in lower case, before their colon.
const WROTE: [&str; 38] = [
    "wrote",
    "writes",
    "said",
    "schrieb",
    "schrieb am",
    "a écrit",
    "écrit",
    "escribió",
    "escribio",
    "ha scritto",
    "scrive",
    "schreef",
    "schreef het volgende",
    "escreveu",
    "napisał",
    "napisał(a)",
    "napisała",
    "skrev",
    "kirjoitti",
    "napsal",
    "napsal(a)",
    "napísal",
    "написал",
    "написал(а)",
    "написала",
    "пишет",
    "пише",
    "написав",
    "yazdı",
    "írta",
    "a scris",
    "έγραψε",
    "写道",
    "寫道",
    "のメール",
    "작성",
    "כתב",
    "كتب",
];
/// Words of the lines that part an answer from a forwarded or original message.
const ORIGINAL: [&str; 24] = [
    "original message",
    "original appointment",
    "forwarded message",
    "begin forwarded message",
    "ursprüngliche nachricht",
    "originalnachricht",
    "weitergeleitete nachricht",
    "message d'origine",
    "message transféré",
    "mensaje original",
    "mensaje reenviado",
    "messaggio originale",
    "messaggio inoltrato",
    "oorspronkelijk bericht",
    "doorgestuurd bericht",
    "mensagem original",
    "mensagem encaminhada",
    "oryginalna wiadomość",
    "wiadomość oryginalna",
    "исходное сообщение",
    "пересылаемое сообщение",
    "原始邮件",
    "元のメッセージ",
    "reply message",
];
/// Names of the first line of a quoted header block.
const FROM_NAMES: [&str; 15] = [
    "from",
    "von",
    "de",
    "da",
    "van",
    "från",
    "fra",
    "od",
    "от",
    "lähettäjä",
    "kimden",
    "发件人",
    "寄件者",
    "差出人",
    "보낸 사람",
];
/// Names of its other lines.
const BLOCK_NAMES: [&str; 46] = [
    "sent",
    "date",
    "to",
    "subject",
    "gesendet",
    "datum",
    "an",
    "betreff",
    "envoyé",
    "à",
    "objet",
    "enviado",
    "enviado el",
    "para",
    "asunto",
    "assunto",
    "data",
    "inviato",
    "a",
    "oggetto",
    "verzonden",
    "aan",
    "onderwerp",
    "skickat",
    "till",
    "ämne",
    "sendt",
    "til",
    "emne",
    "wysłano",
    "do",
    "temat",
    "отправлено",
    "дата",
    "кому",
    "тема",
    "lähetetty",
    "gönderilme",
    "konu",
    "发送时间",
    "收件人",
    "主题",
    "送信日時",
    "宛先",
    "件名",
    "fecha",
];
/// How mail programs of telephones sign.
const DEVICE_LINES: [&str; 14] = [
    "sent from my ",
    "sent from mail for ",
    "sent from outlook",
    "sent via ",
    "get outlook for ",
    "von meinem ",
    "gesendet von ",
    "envoyé de mon ",
    "envoyé depuis ",
    "enviado desde mi ",
    "enviado do meu ",
    "inviato da ",
    "verzonden vanaf ",
    "отправлено с ",
];

/// Where a text was cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// The text without quotes and signature; none where it has neither.
    pub(super) reply_text: Option<String>,
    /// Where the first quote begins, in bytes.
    pub(super) quote_offset: Option<usize>,
    /// Where the signature begins, in bytes.
    pub(super) signature_offset: Option<usize>,
}

/// A line with where it begins.
#[derive(Clone, Copy)]
struct Line<'a> {
    start: usize,
    text: &'a str,
}

/// Finds quotes and signature of `text` (LF line ends).
pub(super) fn split(text: &str) -> Cut {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split('\n') {
        lines.push(Line { start, text: line });
        start += line.len() + 1;
    }
    let mut cut = Cut::default();
    let mut kept = String::new();
    let mut index = 0;
    let mut in_signature = false;
    while index < lines.len() {
        let line = lines[index];
        if is_quoted(line.text) {
            cut.quote_offset.get_or_insert(line.start);
            index += 1;
            in_signature = false;
            continue;
        }
        if begins_original(&lines, index) {
            // Everything below is the older message.
            cut.quote_offset.get_or_insert(line.start);
            break;
        }
        if let Some(length) = attribution(&lines, index) {
            cut.quote_offset.get_or_insert(line.start);
            let next = next_text(&lines, index + length);
            if next.is_none_or(|next| !is_quoted(lines[next].text)) {
                break;
            }
            index += length;
            continue;
        }
        if !in_signature && begins_signature(&lines, index) {
            in_signature = true;
            cut.signature_offset.get_or_insert(line.start);
        }
        if !in_signature {
            kept.push_str(line.text);
            kept.push('\n');
        }
        index += 1;
    }
    if cut.quote_offset.is_some() || cut.signature_offset.is_some() {
        cut.reply_text = Some(tidy(&kept));
    }
    cut
}

/// Without blank lines around, and with one blank line where a quote was taken out.
fn tidy(kept: &str) -> String {
    let mut out = String::with_capacity(kept.len());
    let mut blank = 0;
    for line in kept.trim_end().split('\n') {
        if line.trim().is_empty() {
            blank += 1;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if blank > 0 { "\n\n" } else { "\n" });
        }
        out.push_str(line);
        blank = 0;
    }
    out
}

fn is_quoted(line: &str) -> bool {
    let trimmed = line.trim_start();
    let Some(rest) = trimmed.strip_prefix('>') else {
        return false;
    };
    // `>>> code` of a terminal and `>From` of an mbox are rare next to quotes; only an arrow is told apart.
    !rest.starts_with('=') && line.len() - trimmed.len() < 3
}

fn next_text(lines: &[Line<'_>], from: usize) -> Option<usize> {
    (from..lines.len()).find(|&index| !lines[index].text.trim().is_empty())
}

/// How many lines from `index` on are an attribution.
fn attribution(lines: &[Line<'_>], index: usize) -> Option<usize> {
    let first = lines[index].text.trim();
    if first.is_empty() || first.len() > MAX_ATTRIBUTION_BYTES {
        return None;
    }
    let mut joined = String::new();
    for length in 1..=MAX_ATTRIBUTION_LINES {
        let line = lines.get(index + length - 1)?.text.trim();
        if line.is_empty() || is_quoted(line) {
            return None;
        }
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(line);
        if joined.len() > MAX_ATTRIBUTION_BYTES {
            return None;
        }
        if !line.ends_with([':', '：']) {
            continue;
        }
        let next = next_text(lines, index + length);
        let quoted_next = next.is_some_and(|next| is_quoted(lines[next].text));
        return is_attribution(&joined, quoted_next).then_some(length);
    }
    None
}

/// Whether a sentence that ends with a colon introduces a quote. Where no quote mark follows it has to name a time
/// or an address too, as "she wrote:" may begin anything.
fn is_attribution(sentence: &str, quoted_next: bool) -> bool {
    let lower = sentence
        .trim_end_matches([':', '：'])
        .trim_end()
        .to_lowercase();
    let ends = WROTE.iter().any(|word| lower.ends_with(word));
    // German and Dutch put the verb before the name: "Am 1. Mai schrieb Ann:".
    let inner = ["schrieb", "schreef", "skrev", "kirjoitti"]
        .iter()
        .any(|word| lower.contains(&format!(" {word} ")));
    let dated = lower.bytes().filter(u8::is_ascii_digit).count() >= 3;
    // Some languages of Gmail have no verb: "15 июн. 2026 г. в 10:20, Ann <ann@example.com>:".
    let bare = dated && lower.contains('@') && lower.ends_with('>');
    if quoted_next {
        // A date before a quote introduces it, whatever the verb ("mentioned", "spake thusly").
        return ends || inner || dated;
    }
    if !ends && !inner && !bare {
        return false;
    }
    let addressed = lower.contains('@') || lower.contains('<');
    dated && (addressed || lower.contains(':') || lower.contains("20"))
}

/// Whether everything from `index` on is a forwarded or answered message.
fn begins_original(lines: &[Line<'_>], index: usize) -> bool {
    let line = lines[index].text.trim();
    if line.len() >= 8
        && line.len() < MAX_ATTRIBUTION_BYTES
        && line.starts_with(['-', '_', 'B', 'b'])
    {
        let words = line.trim_matches(['-', '_', ' ', ':']).to_lowercase();
        let framed = line.starts_with(['-', '_']) || line.ends_with(':');
        if framed && ORIGINAL.contains(&words.as_str()) {
            return true;
        }
        let ruled = line.len() >= 10
            && (line.bytes().all(|byte| byte == b'_') || line.bytes().all(|byte| byte == b'-'));
        if ruled && let Some(next) = next_text(lines, index + 1) {
            return is_header_block(lines, next);
        }
    }
    is_header_block(lines, index)
}

/// Outlook quotes with a block of From, Sent, To, Subject.
fn is_header_block(lines: &[Line<'_>], index: usize) -> bool {
    if !named(lines[index].text, &FROM_NAMES) {
        return false;
    }
    let mut names = 0;
    for line in lines.iter().skip(index + 1).take(HEADER_BLOCK_LINES) {
        if named(line.text, &BLOCK_NAMES) {
            names += 1;
        }
    }
    names >= 2
}

fn named(line: &str, names: &[&str]) -> bool {
    let ascii = line.split_once(':');
    let Some((name, value)) = ascii.or_else(|| line.split_once('：')) else {
        return false;
    };
    let name = name.trim().trim_matches(['*', '|', ' ']);
    // Names are short; this spares most lines the lower-casing.
    if name.is_empty() || name.len() > 30 || value.trim().is_empty() {
        return false;
    }
    names.contains(&name.to_lowercase().as_str())
}

fn begins_signature(lines: &[Line<'_>], index: usize) -> bool {
    let line = lines[index].text;
    if line == "-- " || line == "--" || line == "\u{2014} " {
        return true;
    }
    let trimmed = line.trim();
    // A mailing list's footer.
    if trimmed.len() >= 40 && trimmed.bytes().all(|byte| byte == b'_') {
        return true;
    }
    if trimmed.len() > MAX_DEVICE_LINE_BYTES || trimmed.is_empty() {
        return false;
    }
    let lower = trimmed.to_lowercase();
    let device = DEVICE_LINES.iter().any(|start| lower.starts_with(start));
    if !device {
        return false;
    }
    // It is the last thing the sender's program wrote.
    match next_text(lines, index + 1) {
        None => true,
        Some(next) => {
            is_quoted(lines[next].text)
                || begins_original(lines, next)
                || attribution(lines, next).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> (String, Option<&str>, Option<&str>) {
        let cut = split(text);
        (
            cut.reply_text.unwrap_or_else(|| text.to_owned()),
            cut.quote_offset
                .map(|at| text[at..].split('\n').next().unwrap()),
            cut.signature_offset
                .map(|at| text[at..].split('\n').next().unwrap()),
        )
    }

    #[test]
    fn text_without_quote_and_signature_is_left_alone() {
        assert_eq!(
            split("Hello,\n\nsee you at 10:30: bring tea.\nFrom: the shop\n"),
            Cut::default()
        );
        assert_eq!(split(""), Cut::default());
    }

    #[test]
    fn a_top_posted_answer_ends_at_the_attribution() {
        for attribution in [
            "On Mon, 15 Jun 2026 at 10:20, Ann Lee <ann@example.com> wrote:",
            "On Mon, 15 Jun 2026 at 10:20, Ann Lee <\nann@example.com> wrote:",
            "Am Mo., 15. Juni 2026 um 10:20 Uhr schrieb Ann Lee <ann@example.com>:",
            "Le lun. 15 juin 2026 à 10:20, Ann Lee <ann@example.com> a écrit :",
            "El lun, 15 jun 2026 a las 10:20, Ann Lee (<ann@example.com>) escribió:",
            "Il giorno lun 15 giu 2026 alle ore 10:20 Ann Lee <ann@example.com> ha scritto:",
            "Op ma 15 jun 2026 om 10:20 schreef Ann Lee <ann@example.com>:",
            "Em seg., 15 de jun. de 2026 às 10:20, Ann Lee <ann@example.com> escreveu:",
            "пн, 15 июн. 2026 г. в 10:20, Ann Lee <ann@example.com>:",
            "2026年6月15日(月) 10:20 Ann Lee <ann@example.com> 写道：",
            "W dniu 15.06.2026 o 10:20, Ann Lee pisze: Ann napisał(a):",
        ] {
            let first = attribution.split('\n').next().unwrap();
            for quote in ["> one\n> two", "one\ntwo"] {
                let text = format!("Yes.\n\nBest\n\n{attribution}\n\n{quote}");
                let (reply, at, _) = reply(&text);
                assert_eq!(
                    (reply.as_str(), at),
                    ("Yes.\n\nBest", Some(first)),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn answers_between_quotes_are_kept() {
        let text = "Ann wrote:\n> a?\nyes\n\n> b?\nno\n> c";
        assert_eq!(reply(text), ("yes\n\nno".into(), Some("Ann wrote:"), None));
    }

    #[test]
    fn outlook_blocks_end_the_answer() {
        for block in [
            "-----Original Message-----\nFrom: Ann\nSent: Monday",
            "________________________________\nFrom: Ann <a@x>\nSent: Monday\nTo: B\nSubject: x",
            "From: Ann <a@x>\nSent: Monday\nTo: B\nSubject: x",
            "Von: Ann <a@x>\nGesendet: Montag\nAn: B\nBetreff: x",
            "*De :* Ann\n*Envoyé :* lundi\n*À :* B\n*Objet :* x",
            "---------- Forwarded message ---------\nFrom: Ann",
            "Begin forwarded message:\n\nFrom: Ann",
        ] {
            let text = format!("ok\n\n{block}\n\nold");
            let (reply, at, _) = reply(&text);
            assert_eq!(
                (reply.as_str(), at),
                ("ok", Some(block.split('\n').next().unwrap())),
                "{text}"
            );
        }
    }

    #[test]
    fn signatures_are_marked() {
        assert_eq!(
            reply("hi\n\n-- \nAnn\nACME"),
            ("hi".into(), None, Some("-- "))
        );
        assert_eq!(
            reply("hi\n\nSent from my iPhone"),
            ("hi".into(), None, Some("Sent from my iPhone"))
        );
        assert_eq!(
            reply("hi\n-- \nAnn\n\nOn 15 Jun 2026, B <b@x> wrote:\n> q\n> -- \n> B"),
            (
                "hi".into(),
                Some("On 15 Jun 2026, B <b@x> wrote:"),
                Some("-- ")
            )
        );
        assert_eq!(
            split("Sent from my garden, with love\nand tea").signature_offset,
            None
        );
    }

    #[test]
    fn a_message_that_only_quotes_says_nothing_itself() {
        assert_eq!(reply("> a\n> b"), (String::new(), Some("> a"), None));
    }
}
