//! Files that lack what has happened since, or a part of a message.

use nucleus::demo::{Fault, Match};

use super::{UNITS_AFTER_IMPORT, count, export, file, generated, import_file, json, on_both, rows};

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_fetched_is_still_asked_for_after_an_import() {
    on_both(generated, async |app, id| {
        let ids: Vec<String> = app.ledger().into_keys().collect();
        let (spam, trashed) = (&ids[0], &ids[1]);
        app.google
            .with_mailbox(|mailbox| mailbox.relabel(spam, &["SPAM"], &["INBOX"]));
        let takeout = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        app.google
            .with_mailbox(|mailbox| mailbox.relabel(trashed, &["TRASH"], &["INBOX"]));
        app.sync(id).await;
        // Both are wanted now, and neither can be had.
        app.google.with_mailbox(|mailbox| {
            mailbox.relabel(spam, &["INBOX"], &["SPAM"]);
            mailbox.relabel(trashed, &["INBOX", "STARRED"], &["TRASH"]);
        });
        for message in [spam, trashed] {
            let fault = Fault::status(500, "backendError");
            app.google.inject_times(Match::id(message), fault, 500);
        }
        let run = app.sync(id).await;
        assert_eq!(run["error"]["code"], "gaps_open", "{run}");
        app.google.calm();

        let path = file(app, "takeout.mbox", &takeout);
        let run = import_file(app, id, &path).await;
        assert_eq!(count(&run, "stored"), 1, "{run}");
        assert!(!rows(app, id).await.contains_key(spam), "not from a file");
        let run = app.sync(id).await;
        assert_eq!(
            (
                &run["status"],
                count(&run, "stored"),
                count(&run, "updated")
            ),
            (&json!("success"), 1, 1),
            "{run}"
        );
        app.assert_matches_ledger(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_cut_short_with_its_file_is_made_whole_by_the_whole_file() {
    on_both(generated, async |app, id| {
        let whole = app.google.with_mailbox(|mailbox| export::takeout(mailbox));
        let cut = file(app, "cut.mbox", &whole[..whole.len() - 60]);
        let whole = file(app, "whole.mbox", &whole);
        let wanted = app.ledger().len();
        assert_eq!(count(&import_file(app, id, &cut).await, "stored"), wanted);
        let before = rows(app, id).await;
        let run = import_file(app, id, &whole).await;
        let changed = ["updated", "unchanged", "stored"].map(|name| count(&run, name));
        assert_eq!(changed, [1, wanted - 1, 0], "{run}");
        assert_eq!(rows(app, id).await, before, "the same rows and labels");
        let run = import_file(app, id, &cut).await;
        assert_eq!(count(&run, "unchanged"), wanted, "{run}");
        assert_eq!(app.sync(id).await["quota_units"], UNITS_AFTER_IMPORT);
        app.assert_matches_ledger(id).await;
    })
    .await;
}
