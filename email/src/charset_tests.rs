//! Labels that are right, wrong and missing.

use encoding_rs::Encoding;

use super::charset::read;

fn check(label: Option<&str>, bytes: &[u8], expected: &str, flagged: bool) {
    let found = read(bytes, label, false);
    assert_eq!(found.text, expected, "{label:?}");
    assert_eq!(
        found.fallback.is_some(),
        flagged,
        "{label:?} {:?}",
        found.fallback
    );
}

/// The bytes of `text` in the charset `label`.
fn encoded(label: &str, text: &str) -> Vec<u8> {
    let table = Encoding::for_label(label.as_bytes()).unwrap();
    let (bytes, used, unmappable) = table.encode(text);
    assert!(!unmappable && used == table, "{label}");
    bytes.into_owned()
}

const RUSSIAN: &str = "Привет! Встречаемся завтра в десять часов у входа.";
const CHINESE: &str = "您好，会议改到明天上午十点举行，请准时参加。";
const JAPANESE: &str = "お世話になっております。明日の会議は十時からです。";
const KOREAN: &str = "안녕하세요. 내일 회의는 열 시에 시작합니다.";
const FRENCH: &str = "Le café est prêt à l'hôtel, déjà payé.";

#[test]
fn what_is_labelled_rightly_is_read_without_a_flag() {
    for (label, text) in [
        ("koi8-r", RUSSIAN),
        ("windows-1251", RUSSIAN),
        ("iso-8859-5", RUSSIAN),
        ("gb18030", CHINESE),
        ("gb2312", CHINESE),
        ("shift_jis", JAPANESE),
        ("euc-jp", JAPANESE),
        ("iso-2022-jp", JAPANESE),
        ("ks_c_5601-1987", KOREAN),
        ("iso-8859-1", FRENCH),
        ("ISO-8859-15", FRENCH),
        ("\"utf-8\"", FRENCH),
    ] {
        let plain = label.trim_matches('"');
        check(Some(label), &encoded(plain, text), text, false);
    }
    let twice = encoded("iso-2022-jp", JAPANESE).repeat(2);
    check(Some("iso-2022-jp"), &twice, &JAPANESE.repeat(2), false);
    check(Some("cp850"), b"caf\x82", "café", false);
    check(Some("us-ascii"), b"plain", "plain", false);
    check(Some("x-unheard-of"), b"plain", "plain", false);
    check(None, FRENCH.as_bytes(), FRENCH, false);
}

#[test]
fn what_is_labelled_wrongly_is_found_out_and_flagged() {
    for (label, real, text) in [
        ("utf-8", "windows-1252", FRENCH),
        ("utf-8", "koi8-r", RUSSIAN),
        ("utf-8", "gb18030", CHINESE),
        ("utf-8", "shift_jis", JAPANESE),
        ("us-ascii", "windows-1251", RUSSIAN),
        ("us-ascii", "utf-8", FRENCH),
        ("us-ascii", "iso-2022-jp", JAPANESE),
        ("iso-8859-1", "utf-8", FRENCH),
        ("iso-8859-1", "gbk", CHINESE),
        ("iso-8859-1", "koi8-r", RUSSIAN),
        ("iso-8859-1", "euc-kr", KOREAN),
        ("iso-2022-jp", "shift_jis", JAPANESE),
        ("euc-kr", "utf-8", KOREAN),
        (
            "default_charset",
            "big5",
            "您好，會議改到明天上午十點舉行。",
        ),
        ("x-unknown", "euc-jp", JAPANESE),
    ] {
        check(Some(label), &encoded(real, text), text, true);
    }
    check(None, &encoded("iso-2022-jp", JAPANESE), JAPANESE, true);
    check(None, &encoded("windows-1251", RUSSIAN), RUSSIAN, true);
    check(Some("koi8r"), &encoded("koi8-r", RUSSIAN), RUSSIAN, false);
}

#[test]
fn some_broken_characters_do_not_make_a_label_wrong() {
    let mut cut = CHINESE.as_bytes().to_vec();
    cut.pop();
    let found = read(&cut, Some("utf-8"), false);
    assert!(found.text.starts_with("您好，会议") && found.text.ends_with('\u{fffd}'));
    assert!(found.fallback.is_some());
}

#[test]
fn utf16_is_read_in_either_order_with_and_without_a_mark() {
    let mut little = Vec::new();
    let mut big = Vec::new();
    for unit in "Grüße aus Köln".encode_utf16() {
        little.extend(unit.to_le_bytes());
        big.extend(unit.to_be_bytes());
    }
    let marked = |mark: [u8; 2], bytes: &[u8]| [&mark[..], bytes].concat();
    for (label, bytes, flagged) in [
        (Some("utf-16"), marked([0xff, 0xfe], &little), false),
        (Some("utf-16"), marked([0xfe, 0xff], &big), false),
        (Some("utf-16"), little.clone(), false),
        (Some("utf-16"), big.clone(), false),
        (Some("utf-16le"), little.clone(), false),
        (Some("utf-16be"), big.clone(), false),
        (Some("utf-8"), marked([0xff, 0xfe], &little), true),
        (None, marked([0xfe, 0xff], &big), false),
        (None, little, true),
    ] {
        check(label, &bytes, "Grüße aus Köln", flagged);
    }
}

#[test]
fn html_may_name_its_charset_itself() {
    for head in [
        "<meta charset=koi8-r>",
        "<META HTTP-EQUIV='Content-Type' CONTENT=\"text/html; charset=koi8-r\">",
    ] {
        let mut html = head.as_bytes().to_vec();
        html.extend(encoded("koi8-r", RUSSIAN));
        let found = read(&html, None, true);
        assert!(found.text.ends_with(RUSSIAN), "{head}");
        assert_eq!(found.fallback, None);
    }
    let unread = read(b"<meta charset=utf-16>caf\xc3\xa9", None, true);
    assert!(unread.text.ends_with("café"));
}
