//! Real mail through the whole program: every message of every mbox file, once, with its hash.
//!
//! `NUCLEUS_CORPUS` names a folder whose `mailbox/*.mbox` are read; without it a small file of the
//! fixtures is.

use std::path::{Path, PathBuf};

use nucleus::demo::{Arrival, Mailbox, mailbox::parse_hex, mbox};
use serde_json::json;

use crate::harness::Setting;

const OWNER: &str = "me@example.com";

fn files() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = match std::env::var_os("NUCLEUS_CORPUS") {
        Some(corpus) => PathBuf::from(corpus).join("mailbox"),
        None => fixtures,
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "mbox")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// All files as one mailbox. Two files may bear the same ids; the second message gets another.
fn merged(files: &[PathBuf]) -> (Mailbox, usize) {
    let mut all = Mailbox::new(OWNER, 1);
    let mut count = 0;
    for file in files {
        let mailbox = mbox::read(file, OWNER, 1).unwrap();
        count += mailbox.len();
        for (label, name) in mailbox.labels() {
            if label.starts_with("Label_") {
                all.create_label(name);
            }
        }
        for id in mailbox.ids() {
            let number = parse_hex(&id).unwrap();
            let message = mailbox.message(number).unwrap();
            let labels = message.labels.iter().map(|label| label.to_string());
            all.place(Arrival {
                id: Some(number).filter(|&number| all.message(number).is_none()),
                thread: None,
                internal_date_ms: Some(message.internal_date_ms),
                // In spam and trash they would stay out.
                labels: labels
                    .filter(|label| label != "SPAM" && label != "TRASH")
                    .collect(),
                raw: message.raw.clone(),
            });
        }
    }
    (all, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_real_message_is_stored_once_with_its_hash() {
    let (mailbox, count) = merged(&files());
    assert_eq!(mailbox.len(), count);
    let app = Setting::new(mailbox)
        .variable("NUCLEUS_SERVICES__GMAIL__QUOTA", "off")
        .start()
        .await;
    let id = app.connect().await;
    let run = app.sync(&id).await;
    assert_eq!(run["status"], "success", "{run}");
    assert_eq!(
        (&run["counts"]["stored"], &run["counts"]["fetched"]),
        (&json!(count), &json!(count))
    );
    assert_eq!(app.records(&id).await.len(), count);
    app.assert_matches_ledger(&id).await;
    assert_eq!(app.sync(&id).await["quota_units"], 2);
}
