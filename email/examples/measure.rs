//! Mails a second of this crate, on one thread, by CPU time, and the mails that it and others are measured on.
//!
//! `measure mails DIR FOLDER…` writes generated mails of about 8 and 35 KB into `DIR/8kb` and `DIR/35kb`, the same
//! each time, and those of the folders into `DIR/corpus`; `measure run DIR…` reads such folders. `just peers` does
//! both, and measures what others make of the same files.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool that prints, and cannot go on without its mails"
)]

#[path = "../peers/mails.rs"]
mod mails;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

/// How long a folder is read, at least.
const TIME: Duration = Duration::from_secs(3);
/// Generated mails of each size.
const MAILS: usize = 300;
const SEED: u64 = 1;
const WORDS: [&str; 24] = [
    "the", "tea", "of", "this", "week", "comes", "from", "a", "garden", "in", "hills", "where",
    "rain", "falls", "early", "and", "pickers", "walk", "before", "dawn;", "its", "cup", "is",
    "bright",
];

fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match arguments.as_slice() {
        [what, target, folders @ ..] if what.as_os_str() == "mails" => write_mails(target, folders),
        [what, folders @ ..] if what.as_os_str() == "run" => {
            folders.iter().for_each(|folder| run(folder))
        }
        _ => println!("measure mails DIR [FOLDER…] | measure run DIR…"),
    }
}

fn write_mails(target: &Path, folders: &[PathBuf]) {
    let mut random = StdRng::seed_from_u64(SEED);
    for (name, paragraphs) in [("8kb", 13), ("35kb", 62)] {
        let folder = target.join(name);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..MAILS {
            let mail = letter(number, paragraphs, &mut random);
            fs::write(folder.join(format!("{number:05}")), mail).unwrap();
        }
    }
    let corpus = target.join("corpus");
    let mut number = 0;
    for folder in folders {
        fs::create_dir_all(&corpus).unwrap();
        for file in mails::below(folder, &target.join("taken-apart")) {
            fs::copy(file, corpus.join(format!("{number:05}"))).unwrap();
            number += 1;
        }
    }
}

/// A newsletter as plain text and as HTML in tables, each in quoted-printable, and a quoted answer.
fn letter(number: usize, paragraphs: usize, random: &mut StdRng) -> String {
    let mut plain = String::new();
    let mut html = String::from(
        "<html><head><style>td{font-family:Arial}</style></head><body bgcolor=3D\"#ffffff\">\n<div style=3D\"display:none\">A short preview</div>\n<table width=3D\"600\" cellpadding=3D\"0\">\n",
    );
    for paragraph in 0..paragraphs {
        let mut words = String::new();
        for _ in 0..random.random_range(28..40) {
            words.push_str(WORDS[random.random_range(0..WORDS.len())]);
            words.push(' ');
        }
        let _ = write!(plain, "{words}=\r\n caf=C3=A9.\r\n\r\n");
        let _ = write!(
            html,
            "<tr><td style=3D\"padding:8px;color:#333333\"><p>{words}=\r\n<b>caf=C3=A9</b> <a href=3D\"https://tea.example/{paragraph}?m=3D{number}\">more</a></p><img src=3D\"https://tea.example/p.gif\" width=3D\"1\" height=3D\"1\"></td></tr>\r\n"
        );
    }
    plain.push_str("On 1 Jun 2026, Ann <ann@example.com> wrote:\r\n> When is the next letter?\r\n");
    format!(
        "From: =?utf-8?Q?The_Tea_Letter?= <letter@tea.example>\r\nTo: Ann <ann@example.com>, bob@example.com\r\n\
         Subject: =?utf-8?Q?Letter_{number}:_caf=C3=A9?=\r\nDate: Mon, 1 Jun 2026 08:00:00 +0000\r\n\
         Message-ID: <{number}@tea.example>\r\nReferences: <a@tea.example> <b@tea.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"b{number}\"\r\n\r\n--b{number}\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{plain}\r\n--b{number}\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{html}</table></body></html>\r\n--b{number}--\r\n"
    )
}

fn run(folder: &Path) {
    let mut all = Vec::new();
    for file in mails::below(folder, folder) {
        all.push(fs::read(file).unwrap());
    }
    let bytes: usize = all.iter().map(Vec::len).sum();
    // Once to warm up.
    let mut characters: usize = all.iter().map(|raw| email::parse(raw).text.len()).sum();
    let mut rounds = 0;
    let start = cpu();
    while rounds == 0 || cpu() - start < TIME {
        for raw in &all {
            characters += email::parse(raw).text.len();
        }
        rounds += 1;
    }
    let seconds = (cpu() - start).as_secs_f64();
    std::hint::black_box(characters);
    println!(
        "| {} | email | with sanitised HTML, hidden text, quotes | {:.0} | {:.1} | 0 |",
        folder.file_name().unwrap_or_default().to_string_lossy(),
        (rounds * all.len()) as f64 / seconds,
        (rounds * bytes) as f64 / seconds / 1e6
    );
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}
