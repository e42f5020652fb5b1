//! The consumer of the documentation, in Python with Google's own library, as a DNA Engine would be.

use std::{collections::BTreeMap, process::Command};

use nucleus::domain::event::DNA_ANALYSIS;
use serde_json::Value;

use super::{end, work};
use crate::{
    broker::{Cloud, emulator},
    child::{Child, PATIENCE, World, happens},
    doubles::{mail, small_mailbox},
    harness::OPERATOR_KEY,
};

/// The Python that `scripts/test` has given the library to.
#[expect(
    clippy::disallowed_methods,
    reason = "the tools are named by who runs the tests"
)]
fn python() -> String {
    let folder = std::env::var("NUCLEUS_TEST_PYTHON_TOOLS");
    let folder = folder.unwrap_or_else(|_| panic!("run scripts/test, which installs the tools"));
    format!("{folder}/python")
}

/// What the consumer has analysed: by record and change, how often, and the text last seen.
fn analysed(child: &Child) -> BTreeMap<(String, String), (usize, Value)> {
    let mut analysed = BTreeMap::new();
    for line in child.stdout().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let entry = analysed.entry((text("id"), text("change")));
        let (times, last) = entry.or_insert((0, Value::Null));
        *times += 1;
        *last = line["text"].clone();
    }
    analysed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_consumer_takes_each_event_once() {
    let cloud = Cloud::around(World::embedded(small_mailbox(120)).await).await;
    let server = cloud.world.listen("serve").await;
    let worker = work(&cloud.world).await;
    let integration = server.api.connect(&cloud.world).await;
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");

    let mut command = Command::new(python());
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/consumer.py"))
        .env("PUBSUB_EMULATOR_HOST", emulator())
        .env("PROJECT", &cloud.project.id)
        .env("NUCLEUS_URL", &server.api.url)
        .env("NUCLEUS_KEY", OPERATOR_KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(cloud.world.folder.path());
    let consumer = Child::spawn(command);
    let all = happens(PATIENCE, async || analysed(&consumer).len() == 120).await;
    assert!(all, "{}", consumer.stderr());

    // A repeat, as of a relay that died between publishing and marking.
    for event in server.api.all("/events").await {
        let text = |name: &str| event[name].as_str().unwrap();
        let attributes = [
            ("ce-id", text("id")),
            ("ce-type", text("type")),
            ("event_type", "dna_analysis_requested"),
        ];
        let data = event["data"].to_string();
        cloud
            .project
            .publish(DNA_ANALYSIS, &attributes, data.as_bytes())
            .await;
    }
    cloud.world.google.with_mailbox(|mailbox| {
        let first = mailbox.ids()[0].clone();
        mailbox.delete(&first);
        mailbox.deliver(mail(1), &["INBOX"]);
    });
    let run = server.api.sync(&integration).await;
    assert_eq!(server.api.ended(&run).await["status"], "success");
    let all = happens(PATIENCE, async || analysed(&consumer).len() == 122).await;
    let analysed = analysed(&consumer);
    assert!(all, "{} {}", analysed.len(), consumer.stderr());
    for ((id, change), (times, text)) in &analysed {
        assert_eq!(*times, 1, "{id} {change}");
        assert_eq!(text.is_null(), change == "deleted", "{id} {change} {text}");
    }
    end(worker).await;
    server.stop().await;
}
