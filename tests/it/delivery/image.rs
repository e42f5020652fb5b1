//! The image: hadolint reads its file, and what a linter cannot know is looked at here. There is no engine
//! that would build it.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::Command,
};

use nucleus::demo::Mailbox;
use url::Url;

use super::{ROOT, tool};
use crate::child::World;

const FILE: &str = include_str!("../../../Dockerfile");
const IGNORED: &str = include_str!("../../../.dockerignore");
const MANIFEST: &str = include_str!("../../../Cargo.toml");

/// Each instruction on one line, comments left out.
fn instructions() -> Vec<String> {
    let lines = FILE
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let text: Vec<&str> = lines.collect();
    let joined = text.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let whole = lines.filter(|line| !line.is_empty());
    whole.map(str::to_owned).collect()
}

/// The arguments of the last stage's instructions of this name.
fn last_stage(name: &str) -> Vec<String> {
    let all = instructions();
    let stage = all.iter().rposition(|line| line.starts_with("FROM "));
    let lines = all[stage.unwrap()..].iter();
    let named = lines.filter_map(|line| line.strip_prefix(&format!("{name} ")));
    named.map(str::to_owned).collect()
}

#[test]
fn hadolint_finds_nothing_in_the_image() {
    tool("hadolint", &["--failure-threshold=style", "Dockerfile"]);
}

#[test]
fn the_image_is_of_named_releases_and_runs_as_nobody() {
    let mut stages = BTreeSet::new();
    for line in instructions() {
        let Some(from) = line.strip_prefix("FROM ") else {
            continue;
        };
        let words: Vec<&str> = from.split_whitespace().collect();
        let tag = words[0].split_once(':').map(|(_, tag)| tag);
        let is_named = tag.is_some_and(|tag| tag != "latest");
        assert!(is_named || stages.contains(words[0]), "{line}");
        if let [_, "AS", stage] = words.as_slice() {
            stages.insert((*stage).to_owned());
        }
    }
    assert_eq!(stages.len(), 3, "{stages:?}");

    let user = last_stage("USER");
    assert!(
        user[0].parse::<u32>().unwrap() > 0,
        "a number, and not root"
    );
    assert_eq!(user.len(), 1);
    // Sources and what built them stay behind.
    let copies = last_stage("COPY");
    assert_eq!(
        copies,
        ["--from=builder /src/target/release/nucleus /usr/local/bin/nucleus"]
    );
    assert_eq!(last_stage("ENTRYPOINT"), [r#"["nucleus"]"#]);
    assert_eq!(last_stage("CMD"), [r#"["up"]"#]);
    for line in instructions() {
        assert!(!line.starts_with("ADD "), "{line}");
        if line.starts_with("RUN cargo") && !line.contains("chef prepare") {
            assert!(line.contains("--locked"), "{line}");
        }
        let kept = ["ARG ", "ENV ", "LABEL "]
            .iter()
            .any(|name| line.starts_with(name));
        let secrets = ["KEY", "SECRET", "PASSWORD", "TOKEN"];
        let has_secret = secrets
            .iter()
            .any(|word| line.to_uppercase().contains(word));
        assert!(!(kept && has_secret), "{line}");
    }
    let toolchain =
        MANIFEST.parse::<toml::Table>().unwrap()["workspace"]["package"]["rust-version"]
            .as_str()
            .unwrap()
            .to_owned();
    assert!(FILE.contains(&format!("FROM rust:{toolchain}-slim-")));
}

#[test]
fn the_build_is_given_what_it_reads_and_nothing_else() {
    let mut lines = IGNORED.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let given: BTreeSet<&str> = lines.map(|line| line.strip_prefix('!').unwrap()).collect();
    let manifest: toml::Table = MANIFEST.parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let mut read: BTreeSet<&str> = members.iter().map(|name| name.as_str().unwrap()).collect();
    read.extend(["Cargo.lock", "Cargo.toml", "askama.toml", "benches", "src"]);
    assert_eq!(given, read);
    for name in given {
        assert!(Path::new(ROOT).join(name).exists(), "{name}");
    }
}

/// Whether the image's health check finds a container well whose API is at this port.
fn is_well(port: u16) -> bool {
    let check = last_stage("HEALTHCHECK").remove(0);
    let (_, words) = check.split_once(" CMD ").unwrap();
    let words: Vec<String> = serde_json::from_str(words.trim()).unwrap();
    let done = Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .env("PORT", port.to_string())
        .output()
        .unwrap();
    done.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_a_program_that_answers_from_others() {
    let world = World::new(Mailbox::new("me@example.com", 1)).await;
    let server = world.listen("up").await;
    let port = Url::parse(&server.api.url).unwrap().port().unwrap();
    assert!(
        tokio::task::spawn_blocking(move || is_well(port))
            .await
            .unwrap()
    );
    server.stop().await;
    assert!(!is_well(9), "nobody listens");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).unwrap();
        line
    });
    assert!(!is_well(other), "it says that it is not well");
    assert_eq!(answering.join().unwrap(), "GET /livez HTTP/1.1\r\n");
}
