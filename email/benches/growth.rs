//! Time against size for each kind of bomb: `cargo bench -p email --bench growth`.
//!
//! Each bomb is read at a quarter, a half and the whole of its size, and at twice that. Times are CPU time of the
//! process, the best of some rounds. It ends with an error where the whole takes more than two seconds, where doubling
//! takes more than 2.3 times as long, or where nothing in the record says that something was left out.

#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop"
)]

use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use email::{ParsedEmail, parse};
use rustix::time::{ClockId, clock_gettime};

/// That of the program: the C library's gives large pieces back to the system and takes them again for each mail.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest CPU time for the whole of a bomb.
const MAX_TIME: Duration = Duration::from_secs(2);
/// Most that doubling the size may multiply the time with.
const MAX_GROWTH: f64 = 2.3;
/// Times below this are mostly start-up and noise; their growth is printed and not judged.
const MIN_JUDGED: Duration = Duration::from_millis(4);
/// Rounds of each measurement; the fastest counts.
const ROUNDS: usize = 3;

/// A kind of hostile mail.
struct Bomb {
    name: &'static str,
    /// How many of its things make the whole.
    whole: usize,
    /// Whether the record has to say that a limit was hit.
    flagged: bool,
    build: fn(usize) -> Vec<u8>,
}

const BOMBS: [Bomb; 26] = [
    Bomb {
        name: "nested multiparts",
        whole: 10_000,
        flagged: true,
        build: |n| {
            let mut raw = String::from("Subject: x\n");
            for level in 0..n {
                raw.push_str(&format!(
                    "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n"
                ));
            }
            raw.push_str("\nbottom\n");
            raw.into_bytes()
        },
    },
    Bomb {
        name: "nested messages",
        whole: 1_000,
        flagged: true,
        build: |n| {
            format!(
                "Subject: x\n{}\nbottom\n",
                "Content-Type: message/rfc822\n\n".repeat(n)
            )
            .into_bytes()
        },
    },
    Bomb {
        name: "parts",
        whole: 100_000,
        flagged: true,
        build: |n| multipart(&"--b\nContent-Type: a/b\n\nz\n".repeat(n)),
    },
    Bomb {
        name: "text parts",
        whole: 100_000,
        flagged: true,
        build: |n| multipart(&"--b\n\nz\n".repeat(n)),
    },
    Bomb {
        name: "messages side by side",
        whole: 50_000,
        flagged: true,
        build: |n| multipart(&"--b\nContent-Type: message/rfc822\n\nSubject: x\n\nz\n".repeat(n)),
    },
    Bomb {
        name: "addresses, one a field",
        whole: 500_000,
        flagged: true,
        build: |n| format!("{}\nbody", "To: a@example.com\n".repeat(n)).into_bytes(),
    },
    Bomb {
        name: "addresses in a field",
        whole: 500_000,
        flagged: true,
        build: |n| {
            format!("To: {}b@example.com\n\nbody", "a@example.com,\n ".repeat(n)).into_bytes()
        },
    },
    Bomb {
        name: "bytes of header",
        whole: 10_000_000,
        flagged: true,
        build: |n| {
            format!(
                "Subject: x\n{}\nbody",
                "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n".repeat(n / 39)
            )
            .into_bytes()
        },
    },
    Bomb {
        name: "bytes of one field",
        whole: 10_000_000,
        flagged: true,
        build: |n| format!("Subject: {}\n\nbody", "a".repeat(n)).into_bytes(),
    },
    Bomb {
        name: "bytes of boundary",
        whole: 1_000_000,
        flagged: true,
        build: |n| {
            let long = "b".repeat(n);
            format!(
                "Content-Type: multipart/mixed; boundary={long}\n\n--{long}\n\ntext\n--{long}--\n"
            )
            .into_bytes()
        },
    },
    Bomb {
        name: "dashes, long boundary",
        whole: 4_000_000,
        flagged: true,
        build: |n| {
            let long = "-".repeat(n / 40);
            format!(
                "Content-Type: multipart/mixed; boundary=\"{long}x\"\n\n{}",
                "-".repeat(n)
            )
            .into_bytes()
        },
    },
    Bomb {
        name: "pieces of a parameter",
        whole: 50_000,
        flagged: true,
        build: |n| format!("Content-Type: a/b{}\n\nbody", pieces(n)).into_bytes(),
    },
    Bomb {
        name: "pieces in a part",
        whole: 50_000,
        flagged: true,
        build: |n| {
            multipart(&format!(
                "--b\nContent-Disposition: attachment{}\n\nz\n",
                pieces(n)
            ))
        },
    },
    Bomb {
        name: "languages in a part",
        whole: 50_000,
        flagged: true,
        build: |n| {
            let mut fields = String::new();
            for number in 0..n {
                fields.push_str(&format!(";\n a{number}*=u'l'v"));
            }
            multipart(&format!(
                "--b\nContent-Disposition: attachment{fields}\n\nz\n"
            ))
        },
    },
    Bomb {
        name: "boundaries never seen",
        whole: 100_000,
        flagged: true,
        build: |n| multipart(&"--b\nContent-Type: multipart/a; boundary=zz\n\n".repeat(n)),
    },
    Bomb {
        name: "the same in base64",
        whole: 100_000,
        flagged: true,
        build: |n| {
            let inner = STANDARD.encode(multipart(
                &"--b\nContent-Type: multipart/a; boundary=zz\n\n".repeat(n),
            ));
            format!("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{inner}")
                .into_bytes()
        },
    },
    Bomb {
        name: "bytes of base64",
        whole: 64 << 20,
        flagged: false,
        build: |n| {
            let line = format!("{}\n", "QUJD".repeat(19));
            let head =
                "Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n";
            format!("{head}{}", line.repeat(n / line.len())).into_bytes()
        },
    },
    Bomb {
        name: "bytes of base64 text",
        whole: 32 << 20,
        flagged: true,
        build: |n| {
            let line = format!("{}\n", "QUJD".repeat(19));
            format!(
                "Content-Transfer-Encoding: base64\n\n{}",
                line.repeat(n / line.len())
            )
            .into_bytes()
        },
    },
    Bomb {
        name: "lines of quotes",
        whole: 1_000_000,
        flagged: true,
        build: |n| text(&"> a\nb\n".repeat(n / 2)),
    },
    Bomb {
        name: "attributions",
        whole: 100_000,
        flagged: true,
        build: |n| {
            text(&"On 1 Jan 2026 at 10:20 Ann\n<a@example.com>\nsaid\nwrote so:\nx\n".repeat(n / 4))
        },
    },
    Bomb {
        name: "colons, rules, blanks",
        whole: 400_000,
        flagged: true,
        build: |n| text(&"a:\n--------------------\n\n-- \n\nFrom: x\n".repeat(n / 6)),
    },
    Bomb {
        name: "files in the text",
        whole: 100_000,
        flagged: true,
        build: |n| text(&"begin 644 x\n#0V%T\n`\nend\n".repeat(n)),
    },
    Bomb {
        name: "files that do not end",
        whole: 400_000,
        flagged: true,
        build: |n| {
            text(&"begin 644 x\n=ybegin line=1 size=1\n-----BEGIN PGP MESSAGE-----\n".repeat(n / 3))
        },
    },
    Bomb {
        name: "lines of a calendar",
        whole: 400_000,
        flagged: true,
        build: |n| {
            let lines = "BEGIN:VEVENT\nATTENDEE;CN=a;b;c;d:mailto:a@example.com\nEND:VEVENT\n"
                .repeat(n / 3);
            format!("Content-Type: text/calendar\n\n{lines}").into_bytes()
        },
    },
    Bomb {
        name: "recipients of a report",
        whole: 100_000,
        flagged: true,
        build: |n| {
            let lines = "Final-Recipient: rfc822; a@example.com\nAction: failed\n\n".repeat(n);
            format!("Content-Type: message/delivery-status\n\n{lines}").into_bytes()
        },
    },
    Bomb {
        name: "files of a winmail.dat",
        whole: 100_000,
        flagged: true,
        build: |n| {
            let mut stream = vec![0x78, 0x9f, 0x3e, 0x22, 1, 0];
            for _ in 0..n {
                stream.extend_from_slice(&[2, 0x02, 0x90, 0x06, 0, 0, 0, 0, 0, 0, 0]);
            }
            let encoded = STANDARD.encode(stream);
            format!(
                "Content-Type: application/ms-tnef\nContent-Transfer-Encoding: base64\n\n{encoded}"
            )
            .into_bytes()
        },
    },
];

fn multipart(parts: &str) -> Vec<u8> {
    format!("Content-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n").into_bytes()
}

fn text(body: &str) -> Vec<u8> {
    format!("Subject: x\n\n{body}").into_bytes()
}

fn pieces(count: usize) -> String {
    let mut fields = String::new();
    for number in 0..count {
        fields.push_str(&format!(";\n name*{number}=a"));
    }
    fields
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        now.tv_sec.try_into().unwrap(),
        now.tv_nsec.try_into().unwrap(),
    )
}

fn measure(raw: &[u8]) -> (Duration, ParsedEmail) {
    let mut best = Duration::MAX;
    let mut email = ParsedEmail::default();
    for _ in 0..ROUNDS {
        let start = cpu();
        email = parse(std::hint::black_box(raw));
        best = best.min(cpu() - start);
    }
    (best, email)
}

fn limits(email: &ParsedEmail) -> String {
    let mut codes = Vec::new();
    for warning in &email.warnings {
        let code = serde_json::to_value(warning.code).unwrap();
        codes.push(code.as_str().unwrap().to_owned());
    }
    codes.retain(|code| code.starts_with("limit_") || code == "transfer_encoding");
    codes.join(" ")
}

fn main() -> ExitCode {
    let only = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut wrong = 0;
    println!("| kind | size | MB | ms at 1/4 | at 1/2 | at 1 | at 2 | most growth | said |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---|");
    for bomb in &BOMBS {
        if only
            .as_ref()
            .is_some_and(|only| !bomb.name.contains(only.as_str()))
        {
            continue;
        }
        let mut times = Vec::new();
        let mut said = String::new();
        let mut megabytes = 0.0;
        for size in [bomb.whole / 4, bomb.whole / 2, bomb.whole, bomb.whole * 2] {
            let raw = (bomb.build)(size);
            let (time, email) = measure(&raw);
            times.push(time);
            if size == bomb.whole {
                megabytes = raw.len() as f64 / 1e6;
                said = limits(&email);
            }
        }
        let mut growth = 0.0_f64;
        let mut judged = 0.0_f64;
        for pair in times.windows(2) {
            let factor = pair[1].as_secs_f64() / pair[0].as_secs_f64();
            growth = growth.max(factor);
            if pair[0] >= MIN_JUDGED {
                judged = judged.max(factor);
            }
        }
        let bad = times[2] > MAX_TIME || judged > MAX_GROWTH || bomb.flagged && said.is_empty();
        wrong += usize::from(bad);
        let mut line = format!("| {} | {} | {megabytes:.1} |", bomb.name, bomb.whole);
        for time in times {
            line.push_str(&format!(" {:.1} |", time.as_secs_f64() * 1e3));
        }
        println!(
            "{line} {growth:.2} | {said}{} |",
            if bad { " WRONG" } else { "" }
        );
    }
    if wrong > 0 {
        println!("{wrong} kinds of bombs take too long, grow too fast, or are not flagged");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
