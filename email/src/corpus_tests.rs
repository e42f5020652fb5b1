//! Every message of a corpus where `NUCLEUS_CORPUS` names one, of the repository's fixtures otherwise, and random
//! mutations of the fixtures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mail_parser::mailbox::mbox::MessageIterator;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

use super::tests::{MIXED, check, codes};
use super::*;

/// Every message of `folder`: single files below `mime`, or the folder itself, and the mboxes of `mailbox`.
fn messages(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&current)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path.display().to_string();
            if path.is_dir() {
                if !path.ends_with("xss") {
                    folders.push(path);
                }
            } else if name.ends_with(".mbox") && name.contains("/mailbox/") {
                let file = std::io::BufReader::new(fs::File::open(&path).unwrap());
                for (number, message) in MessageIterator::new(file).enumerate() {
                    let contents = message.unwrap().unwrap_contents();
                    found.push((format!("{name}#{number}"), contents));
                }
            } else if current.join("README.md") != path
                && !name.ends_with(".gitattributes")
                && !name.ends_with(".json")
            {
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Most CPU time that one mail may take, in any build, with all that `check` does besides.
const MAX_CPU: Duration = Duration::from_secs(2);

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

#[test]
fn every_message_of_the_corpus_keeps_the_promises() {
    #[expect(clippy::disallowed_methods, reason = "tests find the corpus by it")]
    let corpus = std::env::var_os("NUCLEUS_CORPUS").map(PathBuf::from);
    let folder = corpus.clone().unwrap_or_else(fixtures);
    let all = messages(&folder);
    let mut slowest = (Duration::ZERO, String::new());
    let mut with_text = 0;
    let mut with_html = 0;
    let mut with_quote = 0;
    let mut not_messages = 0;
    for (name, raw) in &all {
        let start = cpu();
        let email = check(raw, name);
        let taken = cpu() - start;
        if taken > slowest.0 {
            slowest = (taken, format!("{name} ({} bytes)", raw.len()));
        }
        with_text += usize::from(!email.text.is_empty());
        with_html += usize::from(email.html.is_some());
        with_quote += usize::from(!email.quotes.is_empty());
        not_messages += usize::from(codes(&email).contains(&WarningCode::NotAMessage));
    }
    println!(
        "read {} messages: {with_text} with text, {with_html} with html, {with_quote} with quotes, {not_messages} not taken for messages; slowest {:?} {}",
        all.len(),
        slowest.0,
        slowest.1
    );
    assert!(all.len() >= if corpus.is_some() { 2_000 } else { 5 });
    assert!(slowest.0 < MAX_CPU, "{slowest:?}");
    assert!(with_text * 10 > all.len() * 9);
    assert!(not_messages * 100 <= all.len() || corpus.is_none());
}

#[test]
fn sanitising_the_hostile_payloads_of_the_corpus_leaves_nothing_active() {
    #[expect(clippy::disallowed_methods, reason = "tests find the corpus by it")]
    let Some(corpus) = std::env::var_os("NUCLEUS_CORPUS").map(PathBuf::from) else {
        println!("no corpus; the payloads in html.rs stand for it");
        return;
    };
    let mut count = 0;
    for entry in fs::read_dir(corpus.join("xss")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let lines = path
            .extension()
            .is_some_and(|end| end == "txt" || end == "jsonl");
        let payloads: Vec<String> = if lines {
            text.lines().map(str::to_owned).collect()
        } else {
            vec![text.into_owned()]
        };
        for line in payloads {
            let payload = serde_json::from_str::<Value>(&line)
                .ok()
                .and_then(|value| value["payload"].as_str().map(str::to_owned))
                .unwrap_or(line);
            let raw = format!("Content-Type: text/html; charset=utf-8\n\n{payload}");
            let email = check(raw.as_bytes(), &payload);
            let lower = email.html.unwrap_or_default().to_ascii_lowercase();
            for tag in lower.split('<').skip(1) {
                let tag = tag.split('>').next().unwrap();
                for word in [
                    "script", "iframe", "svg", "style", "form", "meta", "base", "link", "object",
                    "embed",
                ] {
                    assert!(!tag.starts_with(word), "{payload} gave <{tag}>");
                }
                for word in [
                    " on",
                    " style=",
                    "javascript:",
                    "src=\"http",
                    "data:",
                    "vbscript:",
                ] {
                    let attribute = tag
                        .split('"')
                        .step_by(2)
                        .any(|outside| outside.contains(word));
                    assert!(
                        !attribute && !tag.contains(&format!("=\"{word}")),
                        "{payload} gave <{tag}>"
                    );
                }
            }
            count += 1;
        }
    }
    println!("sanitised {count} payloads");
    assert!(count > 900);
}

#[test]
fn ten_thousand_mutations_break_nothing() {
    #[expect(clippy::disallowed_methods, reason = "a variable repeats a run")]
    let given = std::env::var("NUCLEUS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("seed {seed}; NUCLEUS_SEED={seed} repeats it");
    let mut random = StdRng::seed_from_u64(seed);
    let mut sources: Vec<Vec<u8>> = vec![MIXED.as_bytes().to_vec()];
    for (_, raw) in messages(&fixtures()) {
        sources.push(raw);
    }
    for round in 0..10_000 {
        let mut raw = sources[random.random_range(0..sources.len())].clone();
        for _ in 0..random.random_range(1..12) {
            mutate(&mut raw, &sources, &mut random);
        }
        check(&raw, &format!("seed {seed} round {round}"));
    }
}

fn mutate(raw: &mut Vec<u8>, sources: &[Vec<u8>], random: &mut StdRng) {
    const TOKENS: [&[u8]; 16] = [
        b"\r\n\r\n",
        b"--outer",
        b"--inner--\r\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"\0",
        b"=?utf-8?q?",
        b"</p>",
        b"<b><p>",
        b"<table><i>",
        b"<pre>\n",
        b"<button>",
        b"<!--",
        b"\xff\xfe",
        b"\r\n> ",
        b"<div style='font-size:0'>",
        b"&#x80;",
    ];
    let at = random.random_range(0..=raw.len());
    let end = (at + random.random_range(0..40)).min(raw.len());
    match random.random_range(0..5) {
        0 => {
            raw.splice(at..end, std::iter::empty());
        }
        1 => {
            let token = TOKENS[random.random_range(0..TOKENS.len())];
            raw.splice(at..at, token.iter().copied());
        }
        2 => {
            for byte in &mut raw[at..end] {
                *byte = random.random();
            }
        }
        3 => {
            let other = &sources[random.random_range(0..sources.len())];
            let from = random.random_range(0..=other.len());
            let to = (from + random.random_range(0..400)).min(other.len());
            raw.splice(at..at, other[from..to].iter().copied());
        }
        _ => raw.truncate(raw.len() - raw.len() / 8),
    }
}
