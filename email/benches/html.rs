//! Measures how fast mail is understood, on one core: generated HTML mail of 8 and 35 KB, the corpus where
//! `NUCLEUS_CORPUS` names one, and how time grows with each kind of HTML made to cost much. Prints tables; ends with
//! a failure where a bomb takes more than two seconds or grows more than linearly.
//!
//! `cargo bench -p email --features promises`

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use email::promises::{html, tree};
use mail_parser::mailbox::mbox::MessageIterator;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

/// That of the program: the C library's gives large pieces back to the system and takes them again for each mail.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Shortest time that a figure rests on.
const ENOUGH: Duration = Duration::from_millis(300);
/// Longest that one message may take, whatever it is.
const LONGEST: Duration = Duration::from_secs(2);
/// By how much time may grow where the input doubles; what is quicker than `TOO_SHORT` proves nothing.
const GROWTH: f64 = 2.3;
const TOO_SHORT: Duration = Duration::from_millis(5);
/// Sizes of the bombs, in bytes.
const SIZES: [usize; 4] = [125_000, 250_000, 500_000, 1_000_000];

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let _ = speed(&mut out);
    match growth(&mut out) {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn speed(out: &mut impl io::Write) -> io::Result<()> {
    let mut random = StdRng::seed_from_u64(7);
    let small: Vec<String> = (0..32).map(|_| page(8 << 10, &mut random)).collect();
    let large: Vec<String> = (0..8).map(|_| page(35 << 10, &mut random)).collect();
    writeln!(
        out,
        "{:<38} {:>9} {:>11} {:>8}",
        "on one core", "µs each", "messages/s", "MB/s"
    )?;
    for (name, pages) in [("8 KB of html", &small), ("35 KB of html", &large)] {
        let work: Vec<&str> = pages.iter().map(String::as_str).collect();
        row(out, &format!("{name}: tree alone"), &work, |page| {
            black_box(tree(page));
        })?;
        row(out, &format!("{name}: tree, sanitising"), &work, |page| {
            black_box(html(page, false));
        })?;
        row(out, &format!("{name}: all"), &work, |page| {
            black_box(html(page, true));
        })?;
        let mails: Vec<Vec<u8>> = pages.iter().map(|page| mail(page)).collect();
        let raw: Vec<&[u8]> = mails.iter().map(Vec::as_slice).collect();
        row(out, &format!("a mail with {name}: parse"), &raw, |raw| {
            black_box(email::parse(raw));
        })?;
    }
    #[expect(clippy::disallowed_methods, reason = "the corpus is found by it")]
    if let Some(folder) = std::env::var_os("NUCLEUS_CORPUS") {
        let mails = messages(Path::new(&folder));
        let raw: Vec<&[u8]> = mails.iter().map(Vec::as_slice).collect();
        row(out, "the corpus: parse", &raw, |raw| {
            black_box(email::parse(raw));
        })?;
    }
    writeln!(out)
}

fn row<T: AsRef<[u8]> + Copy>(
    out: &mut impl io::Write,
    name: &str,
    work: &[T],
    mut step: impl FnMut(T),
) -> io::Result<()> {
    let mut bytes = 0;
    for item in work {
        bytes += item.as_ref().len();
        step(*item);
    }
    // The best round is the one the machine disturbed least.
    let mut best = Duration::MAX;
    let mut spent = Duration::ZERO;
    while spent < ENOUGH {
        let start = processor_time();
        for item in work {
            step(*item);
        }
        let taken = processor_time() - start;
        best = best.min(taken);
        spent += taken;
    }
    let each = best.as_secs_f64() / work.len() as f64;
    writeln!(
        out,
        "{name:<38} {:>9.1} {:>11.0} {:>8.1}",
        each * 1e6,
        1.0 / each,
        bytes as f64 / best.as_secs_f64() / 1e6
    )
}

/// Time that this thread had of a processor: other work on the machine does not count.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        spent.tv_sec.unsigned_abs(),
        u32::try_from(spent.tv_nsec).unwrap_or(0),
    )
}

/// Prints time against size for each kind of bomb; whether all kept the promise.
fn growth(out: &mut impl io::Write) -> io::Result<bool> {
    write!(out, "{:<38}", "ms for html of")?;
    for size in SIZES {
        write!(out, " {:>8}", format!("{} KB", size / 1000))?;
    }
    writeln!(out, " {:>8}", "growth")?;
    let mut good = true;
    for (name, bomb) in bombs() {
        write!(out, "{:<38}", name.escape_debug().to_string())?;
        let mut before = Duration::MAX;
        let mut worst: f64 = 0.0;
        for size in SIZES {
            let source = bomb(size);
            let mut best = Duration::MAX;
            for _ in 0..5 {
                let start = processor_time();
                black_box(html(&source, true));
                best = best.min(processor_time() - start);
            }
            write!(out, " {:>8.1}", best.as_secs_f64() * 1e3)?;
            out.flush()?;
            if before >= TOO_SHORT {
                worst = worst.max(best.as_secs_f64() / before.as_secs_f64());
            }
            good &= best <= LONGEST;
            before = best;
        }
        good &= worst <= GROWTH;
        writeln!(out, " {worst:>8.2}")?;
    }
    Ok(good)
}

type Bomb = Box<dyn Fn(usize) -> String>;

fn bombs() -> Vec<(&'static str, Bomb)> {
    let mut all: Vec<(&'static str, Bomb)> = Vec::new();
    for unit in [
        "<div>",
        "<b>",
        "<b a=1>",
        "<a href=x>",
        "<p><font size=1></p>",
        "<table>",
        "<table><i></i>",
        "<table><tr><td>",
        "<tr>x",
        "<table>x",
        "<p><a href=1><div>",
        "<ul><li>",
        "<button><p>",
        "</p>",
        "</b>",
        "<i></b>",
        "<b><p></b>",
        "<b><div></b></i>",
        "<svg><a>",
        "<math><mtext><p>",
        "<template>",
        "<table><td><object></td>",
        "<select><option>",
        "<form><input>",
        "<!-- x -->",
        "<!--",
        "<![CDATA[",
        "<?",
        "<style>a{color:red}</style>",
        "<script><!--<script>",
        "<a x='",
        "&",
        "&amp",
        "&notit",
        "&#x",
        "\u{a0}",
        "<",
        "</",
        "\r",
        "<br>",
        "<img alt=x width=1>",
        "<blockquote>",
        "<pre>\n",
        "<a href=http://a>",
        "<x y=z>",
    ] {
        all.push((unit, Box::new(move |size| unit.repeat(size / unit.len()))));
    }
    all.push((
        "attributes of one tag",
        Box::new(|size| {
            let mut tag = String::from("<p ");
            for number in 0..size / 8 {
                tag.push_str(&format!("a{number} "));
            }
            tag + ">"
        }),
    ));
    all.push((
        "fonts left open, each another",
        Box::new(|size| {
            let mut fonts = String::new();
            for number in 0..size / 28 {
                fonts.push_str(&format!("<p><font size={number}>x</p>"));
            }
            fonts
        }),
    ));
    all.push((
        "200 fonts left open, then paragraphs",
        Box::new(|size| {
            let mut fonts = String::from("<p>");
            for number in 0..200 {
                fonts.push_str(&format!("<font size={number}>"));
            }
            fonts + &"<p>x".repeat(size / 4)
        }),
    ));
    all.push((
        "formatting around deep blocks",
        Box::new(|size| {
            let mut unit = String::new();
            for number in 0..30 {
                unit.push_str(&format!("<b x={number}><i>"));
            }
            unit.push_str(&"<div>".repeat(100));
            unit.push_str(&"</b></i>".repeat(200));
            unit.push_str(&"</div>".repeat(100));
            unit.repeat(size / unit.len())
        }),
    ));
    all.push((
        "rules that look at all around",
        Box::new(|size| {
            let mut css = String::from("<style>");
            for number in 0..300 {
                css.push_str(&format!(".x{number} .y b{{display:none}}"));
            }
            css + "</style>" + &"<div class=y>".repeat(200) + &"<b>x</b>".repeat(size / 8)
        }),
    ));
    all
}

/// A page as newsletters are: tables, inline styles, links, a style sheet, a hidden preview.
fn page(bytes: usize, random: &mut StdRng) -> String {
    const WORDS: [&str; 16] = [
        "tea",
        "the",
        "caf&eacute;",
        "opens",
        "at",
        "ten",
        "and",
        "serves",
        "cake",
        "with",
        "a",
        "view",
        "of",
        "our",
        "garden",
        "&nbsp;",
    ];
    let mut html = String::from(
        "<!DOCTYPE html>\r\n<html><head><title>News</title><meta charset=\"utf-8\"><style type=\"text/css\">\r\n\
         body { margin:0; padding:0 } .button { background:#3366cc; color:#ffffff } .preview { display:none !important }\r\n\
         @media only screen and (max-width:600px) { .column { display:block !important; width:100% !important } }\r\n\
         </style></head><body bgcolor=\"#f4f4f4\">\r\n<div class=\"preview\">All about tea this week</div>\r\n\
         <table role=\"presentation\" width=\"600\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" align=\"center\">\r\n",
    );
    while html.len() < bytes {
        html.push_str(
            "<tr><td class=\"column\" style=\"padding:10px 20px;font-family:Arial,Helvetica,sans-serif;font-size:14px;\
             line-height:20px;color:#333333\" align=\"left\" valign=\"top\">\r\n<p style=\"margin:0 0 12px 0\">",
        );
        for _ in 0..random.random_range(20..60) {
            let word = WORDS[random.random_range(0..WORDS.len())];
            match random.random_range(0..20) {
                0 => html.push_str(&format!("<b>{word}</b> ")),
                1 => html.push_str(&format!(
                    "<a href=\"https://example.com/{}?a=1&amp;b={}\" style=\"color:#3366cc;text-decoration:none\" target=\"_blank\">{word}</a> ",
                    random.random_range(0..1000),
                    random.random_range(0..1000),
                )),
                _ => {
                    html.push_str(word);
                    html.push(' ');
                }
            }
        }
        html.push_str(
            "</p>\r\n<img src=\"https://example.com/i.png\" width=\"120\" height=\"60\" alt=\"Picture\" style=\"display:block\">\r\n</td></tr>\r\n",
        );
    }
    html.push_str(
        "</table><img src=\"https://example.com/o.gif\" width=\"1\" height=\"1\" alt=\"\"></body></html>\r\n",
    );
    html
}

fn mail(page: &str) -> Vec<u8> {
    format!(
        "Received: from a by b; Mon, 1 Jun 2026 08:00:00 +0000\r\nFrom: Ann <ann@example.com>\r\nTo: Bob <bob@example.com>\r\n\
         Subject: =?utf-8?Q?Caf=C3=A9?=\r\nDate: Mon, 1 Jun 2026 08:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}"
    )
    .into_bytes()
}

/// Every message of the folders `mime` and `mailbox`.
fn messages(corpus: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![corpus.join("mime"), corpus.join("mailbox")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "mbox")
                && folder.ends_with("mailbox")
            {
                if let Ok(file) = fs::File::open(&path) {
                    for message in MessageIterator::new(io::BufReader::new(file)).flatten() {
                        found.push(message.unwrap_contents());
                    }
                }
            } else {
                found.extend(fs::read(&path));
            }
        }
    }
    found
}
