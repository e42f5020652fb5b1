//! The README, read as a new user would: each block of commands is run as it stands there, in its
//! order, and what it says to put into a variable is put there.
//!
//! Two commands are stood in for. `cargo run --release --` runs the binary that the tests were built
//! with, and `curl` asks the free port that the program listens on, in place of 8080. The block that
//! runs the tests is left out, because it is what runs this one.

use std::{
    collections::BTreeSet,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use nucleus::{demo::generate, domain::SystemClock};
use serde_json::Value;

use crate::{
    child::{Child, PATIENCE, Server, World},
    doubles::github::Github,
    importing::export::takeout,
};

const README: &str = include_str!("../../README.md");

/// The blocks of commands, without the indentation of the list they stand in.
fn blocks() -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<(usize, Vec<&str>)> = None;
    for line in README.lines() {
        let indent = line.len() - line.trim_start().len();
        match (&mut block, line.trim()) {
            (None, "```sh") => block = Some((indent, Vec::new())),
            (Some((_, lines)), "```") => {
                blocks.push(lines.join("\n"));
                block = None;
            }
            (Some((indent, lines)), _) => lines.push(line.get(*indent..).unwrap_or_default()),
            (None, _) => {}
        }
    }
    blocks
}

/// A person at a shell in a clone.
struct Person {
    world: World,
    github: Github,
    variables: Vec<(&'static str, String)>,
    address: String,
}

impl Person {
    async fn new() -> Self {
        let mut world = World::embedded_with(generate::mailbox(30, 11), |options| {
            options.client_id = "the-client-id.apps.googleusercontent.com".to_owned();
            options.client_secret = "the-client-secret".to_owned();
        })
        .await;
        // The README has the person set these themselves.
        for name in ["CLIENT_ID", "CLIENT_SECRET"] {
            world.unset(&format!("NUCLEUS_SERVICES__GMAIL__{name}"));
        }
        world.unset("NUCLEUS_HTTP__OPERATOR_KEY");
        let github = Github::start(Arc::new(SystemClock)).await;
        github.with(|account| account.push_to_new("one"));
        world.set("NUCLEUS_SERVICES__GITHUB__API_URL", github.url.clone());
        let tools = world.folder.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let cargo = format!(
            "#!/bin/bash\n[ \"$1 $2 $3\" = 'run --release --' ] || exit 64\nexec '{}' \"${{@:4}}\"\n",
            env!("CARGO_BIN_EXE_nucleus")
        );
        place(&tools.join("cargo"), &cargo);
        let curl = format!(
            "#!/bin/bash\nexec '{}' --fail-with-body \"${{@//127.0.0.1:8080/$ADDRESS}}\"\n",
            found("curl")
        );
        place(&tools.join("curl"), &curl);
        Self {
            world,
            github,
            variables: Vec::new(),
            address: String::new(),
        }
    }

    fn shell(&self, block: &str) -> Command {
        let tools = self.world.folder.path().join("tools");
        let mut command = self.world.command(&[]);
        let mut shell = Command::new("/bin/bash");
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap());
        }
        command.env_clear();
        shell
            .args(["-euo", "pipefail", "-c", block])
            .env("PATH", format!("{}:/usr/bin:/bin", tools.display()))
            .env("HOME", self.world.folder.path())
            .env("ADDRESS", &self.address)
            .envs(self.variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(self.world.folder.path())
            .process_group(0);
        shell
    }

    /// Runs a block to its end; gives what it printed, one JSON value after another.
    async fn runs(&self, block: &str) -> Vec<Value> {
        let mut child = Child::spawn(self.shell(block));
        let status = child.exit(PATIENCE).await;
        let printed = child.finished(status).ok();
        let values = serde_json::Deserializer::from_str(&printed).into_iter();
        values.map(|value| value.unwrap()).collect()
    }

    /// Runs a block that goes on until it is ended, and waits until the API listens.
    async fn starts(&mut self, block: &str) -> Server {
        let server = Server::start(self.shell(block)).await;
        let url = server.api.url.clone();
        self.address = url.trim_start_matches("http://").to_owned();
        server
    }

    /// Presses Ctrl-C.
    async fn ends(&self, child: &mut Child) {
        killpg(group(child), Signal::SIGINT).unwrap();
        let status = child.exit(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{:#?}", child.finished(status));
    }

    fn sets(&mut self, name: &'static str, value: &Value) {
        let text = value.as_str().unwrap().to_owned();
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, text));
    }
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn place(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Where a command is that a person has.
fn found(name: &str) -> String {
    let folders = ["/usr/local/bin", "/usr/bin", "/bin", "/opt/homebrew/bin"];
    let path = folders
        .into_iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| Path::new(path).exists());
    path.unwrap_or_else(|| panic!("{name} is not installed: scripts/test installs it"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_block_of_commands_works_as_it_stands() {
    let mut person = Person::new().await;
    let blocks = blocks();
    let [
        demo,
        tests,
        up,
        entity,
        services,
        up_with_client,
        start,
        watch,
        by_token,
        github_by_token,
        import,
        doctor,
    ] = &blocks[..]
    else {
        panic!("the README has other blocks: {blocks:#?}");
    };
    assert_eq!(tests, "scripts/test");

    let mut child = Child::spawn(person.shell(demo));
    child.says("It stays up until Ctrl-C").await;
    assert!(
        child.stdout().contains("is stored once"),
        "{}",
        child.stdout()
    );
    person.ends(&mut child).await;

    let mut server = person.starts(up).await;
    let stdout = server.child.stdout();
    let key = stdout.lines().find(|line| line.starts_with("nk_")).unwrap();
    person.sets("KEY", &key.into());
    let made = person.runs(entity).await;
    person.sets("ENTITY", &made[0]["id"]);
    let listed = person.runs(services).await;
    assert_eq!(listed[0]["items"][0]["oauth"]["is_configured"], false);
    person.ends(&mut server.child).await;

    let mut server = person.starts(up_with_client).await;
    let listed = person.runs(services).await;
    assert_eq!(listed[0]["items"][0]["oauth"]["is_configured"], true);
    let begun = person.runs(start).await;
    let url = begun[0]["authorization_url"].as_str().unwrap();
    let api = server.api.with_key(&person.variables[0].1);
    api.consent_and_confirm(&person.world, url).await.unwrap();
    let connected = api.all("/integrations").await;
    person.sets("INTEGRATION", &connected[0]["id"]);
    let watched = person.runs(watch).await;
    let [integrations, runs, ..] = &watched[..] else {
        panic!("{watched:#?}")
    };
    assert_eq!(integrations["items"][0]["status"], "active");
    assert_eq!(runs["items"][0]["trigger"], "connected");
    let id = connected[0]["id"].as_str().unwrap();
    let run = api.sync(id).await;
    assert_eq!(api.ended(&run).await["status"], "success");
    let watched = person.runs(watch).await;
    assert!(watched[2]["items"][0]["meta_data"]["subject"].is_string());
    assert_eq!(
        watched[3]["items"][0]["type"],
        "dev.nucleus.dna.analysis_requested.v1"
    );
    assert!(watched[4]["run_id"].is_string());

    let another = person.runs(entity).await;
    person.sets("ENTITY", &another[0]["id"]);
    person.sets("REFRESH_TOKEN", &person.world.google.refresh_token().into());
    let connected = person.runs(by_token).await;
    assert_eq!(connected[0]["status"], "active");
    person.sets("TOKEN", &person.github.access_token().into());
    let at_github = person.runs(github_by_token).await;
    assert_eq!(at_github[0]["status"], "active");
    let run = api.sync(at_github[0]["id"].as_str().unwrap()).await;
    assert_eq!(api.ended(&run).await["counts"]["stored"], 3);

    let export = person.world.google.with_mailbox(|mailbox| takeout(mailbox));
    let mbox = person.world.folder.path().join("takeout.mbox");
    std::fs::write(&mbox, export).unwrap();
    person.sets("MBOX", &mbox.display().to_string().into());
    person.sets("INTEGRATION", &connected[0]["id"]);
    let mut child = Child::spawn(person.shell(import));
    let status = child.exit(PATIENCE).await;
    assert!(child.finished(status).ok().contains("30 messages in"));
    let id = connected[0]["id"].as_str().unwrap();
    let run = api.sync(id).await;
    // Nothing is got but what is named, and there is one page of it.
    assert_eq!(api.ended(&run).await["quota_units"], 9);

    // In another terminal, with the settings of the one that runs.
    let address = person.address.clone();
    for (name, value) in [
        ("NUCLEUS_HTTP__LISTEN", address.as_str()),
        (
            "NUCLEUS_SERVICES__GMAIL__CLIENT_ID",
            "the-client-id.apps.googleusercontent.com",
        ),
        (
            "NUCLEUS_SERVICES__GMAIL__CLIENT_SECRET",
            "the-client-secret",
        ),
    ] {
        assert!(name.ends_with("LISTEN") || up_with_client.contains(value));
        person.sets(name, &value.into());
    }
    let mut child = Child::spawn(person.shell(doctor));
    let status = child.exit(PATIENCE).await;
    let looked = child.finished(status).ok();
    for words in ["the service accepts the client", "ready at", "0 failed"] {
        assert!(looked.contains(words), "{words}: {looked}");
    }
    person.ends(&mut server.child).await;
}

/// The commands in the README's table, without what they are given.
fn commands() -> BTreeSet<String> {
    let (_, table) = README.split_once("| command | does |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let cells = table.lines().filter_map(|line| line.split(" | ").next());
    let mut commands = BTreeSet::new();
    for code in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
        let words = code.split([' ', '\\']);
        let words =
            words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        commands.insert(
            words
                .filter(|word| !word.starts_with('-'))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_commands_is_that_of_the_program() {
    let world = World::new(generate::mailbox(1, 1)).await;
    let help = async |words: &[&str]| {
        let arguments = [words, &["--help"]].concat();
        world.run(&arguments).await.ok()
    };
    // What the program lists under a command, and under those below it.
    let below = |text: &str| -> Vec<String> {
        let Some((_, list)) = text.split_once("Commands:\n") else {
            return Vec::new();
        };
        let lines = list.lines().take_while(|line| !line.is_empty());
        let names = lines.filter_map(|line| line.split_whitespace().next());
        names
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect()
    };
    let mut known = BTreeSet::new();
    for name in below(&help(&[]).await) {
        let inner = below(&help(&[&name]).await);
        if inner.is_empty() {
            known.insert(name.clone());
        }
        known.extend(inner.iter().map(|inner| format!("{name} {inner}")));
    }
    assert_eq!(commands(), known);
}
