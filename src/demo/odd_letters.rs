//! Letters that most programs write no more: other scripts, old charsets, and mail that no standard
//! allows. They are written by hand, because no builder would.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::DateTime;
use mail_builder::mime::MimePart;

use super::letters::{OWNER, Sheet, written};

impl Sheet<'_> {
    /// A mail in another script or charset.
    pub fn foreign(&mut self) -> Vec<u8> {
        let utf8 = |from, subject: &'static str, text: &'static str| {
            let message = self.start(from, OWNER).subject(subject);
            written(message.body(MimePart::new("text/plain", text)))
        };
        let choice = self.serial % 8;
        match choice {
            0 => utf8(
                ("张三", "zhangsan@example.com"),
                "关于下周的会议",
                "你好，\n\n下周二下午两点开会，请提前准备材料。\n\n谢谢！\n张三",
            ),
            1 => utf8(
                ("فلان", "fulan@example.org"),
                "موعد الاجتماع",
                "مرحبا،\n\nالاجتماع يوم الثلاثاء الساعة الثانية ظهرا.\n\nمع التحية",
            ),
            2 => utf8(
                ("ישראל", "israel@example.org"),
                "פגישה ביום שלישי",
                "שלום,\n\nהפגישה תתקיים ביום שלישי בשעה שתיים.\n\nתודה",
            ),
            3 => utf8(
                ("Mia 🌻", "mia@example.com"),
                "🎉🎂 Party!",
                "Komm vorbei! 🥳👨‍👩‍👧‍👦\n\nSamstag ab 19 Uhr. Bring gern jemanden mit 💛",
            ),
            4 => self.latin1(),
            5 => self.koi8_r(),
            6 => self.iso_2022_jp(),
            _ => utf8(
                ("홍길동", "hong@example.com"),
                "다음 주 회의",
                "안녕하세요,\n\n다음 주 화요일 오후 두 시에 회의가 있습니다.\n\n감사합니다",
            ),
        }
    }

    fn latin1(&self) -> Vec<u8> {
        let text = "Grüße aus Köln!\r\n\r\nDas Café hat jetzt bis 22 Uhr geöffnet, für 3 £ gibt es Crème brûlée.\r\n";
        // Every character of it is below U+0100 and so one byte of that number.
        let body: Vec<u8> = text.chars().map(|character| character as u8).collect();
        let subject = "=?iso-8859-1?Q?Gr=FC=DFe_aus_K=F6ln?=";
        self.in_charset("iso-8859-1", "8bit", subject, &body)
    }

    fn koi8_r(&self) -> Vec<u8> {
        let subject = format!("=?koi8-r?B?{}?=", STANDARD.encode(to_koi8_r("Встреча")));
        let body = to_koi8_r("Здравствуйте!\r\n\r\nВстреча во вторник в два часа.\r\nИван\r\n");
        self.in_charset("koi8-r", "8bit", &subject, &body)
    }

    fn iso_2022_jp(&self) -> Vec<u8> {
        let subject = format!(
            "=?ISO-2022-JP?B?{}?=",
            STANDARD.encode(b"\x1b$BMh=5$N2q5D$K$D$$$F\x1b(B")
        );
        let body = b"\x1b$B$3$s$K$A$O!\";3ED$G$9!#Mh=5$N2q5D$O2PMKF|$N8a8eFs;~$+$i$G$9!#\x1b(B\r\n\x1b$B$h$m$7$/$*4j$$$$$?$7$^$9!#\x1b(B\r\n";
        self.in_charset("ISO-2022-JP", "7bit", &subject, body)
    }

    fn in_charset(&self, charset: &str, encoding: &str, subject: &str, body: &[u8]) -> Vec<u8> {
        let mut mail = format!(
            "{}Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n",
            self.plain_headers()
        )
        .into_bytes();
        mail.extend_from_slice(body);
        mail
    }

    fn plain_headers(&self) -> String {
        let date = DateTime::from_timestamp(self.date, 0).unwrap_or_default();
        format!(
            "Date: {}\r\nMessage-ID: <{}>\r\nFrom: someone@example.org\r\nTo: {}\r\n",
            date.to_rfc2822(),
            self.message_id(),
            OWNER.1
        )
    }

    /// A mail that no standard allows; four kinds.
    pub fn broken(&self, kind: usize) -> Vec<u8> {
        let headers = self.plain_headers();
        match kind % 4 {
            // The multipart never ends, and its charset does not exist.
            0 => format!(
                "{headers}Subject: cut off\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain; charset=x-no-such\r\n\r\nThe rest of this mail was lost on the"
            )
            .into_bytes(),
            // Raw bytes in a header, a NUL in the body, bare line feeds.
            1 => {
                let mut mail = headers.replace("\r\n", "\n").into_bytes();
                mail.extend_from_slice(b"Subject: caf\xe9 \xff\xfe\n\nbefore\0after\n");
                mail
            }
            // No header at all.
            2 => format!("\r\nJust text, letter {:x}, that somebody piped into sendmail.\r\n", self.serial)
                .into_bytes(),
            // Base64 that breaks off in the middle of four, with letters that are none of it.
            _ => format!(
                "{headers}Subject: =?utf-8?B?4pyTIGJyb2tlb?=\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nVGhpcyBpcyBoYWxm*IG9mIGEgbWVzc2Fn"
            )
            .into_bytes(),
        }
    }
}

/// Russian text in KOI8-R, whose letters stand in the order of their Latin sounds.
fn to_koi8_r(text: &str) -> Vec<u8> {
    let small = "юабцдефгхийклмнопярстужвьызшэщчъ";
    text.chars()
        .map(|character| {
            let lower = character.to_lowercase().next().unwrap_or(character);
            match small.chars().position(|letter| letter == lower) {
                Some(place) if lower == character => 0xc0 + place as u8,
                Some(place) => 0xe0 + place as u8,
                None => character as u8,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn charsets_read_back_as_written() {
        let mut random = StdRng::seed_from_u64(1);
        let mut sheet = Sheet {
            random: &mut random,
            date: 1_780_000_000,
            serial: 0,
        };
        for (serial, subject, word) in [
            (0, "关于下周的会议", "下周二"),
            (4, "Grüße aus Köln", "Crème brûlée"),
            (5, "Встреча", "Здравствуйте!"),
            (6, "来週の会議について", "こんにちは"),
        ] {
            sheet.serial = serial;
            let raw = sheet.foreign();
            let mail = MessageParser::default().parse(&raw).unwrap();
            assert_eq!(mail.subject(), Some(subject));
            assert!(mail.body_text(0).unwrap().contains(word), "{subject}");
        }
    }
}
