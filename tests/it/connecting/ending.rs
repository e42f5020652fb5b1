//! How connections end at each vendor: what is revoked of what the person granted, and what is told of it.

use super::*;

impl Setting {
    /// What removing an integration answers.
    async fn remove(&self, made: &Value) -> Value {
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        let sent = self.api().try_send("DELETE", &path, None).await;
        let (status, removed) = sent.unwrap();
        assert_eq!(status, 200, "{removed}");
        removed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_by_hand_of_the_same_account_lives_on_no_grant() {
    use ServiceName::{Github, Notion, Slack};
    let setting = Setting::start().await;
    for (service, scopes) in [
        (Github, "repo"),
        (Notion, ""),
        (Slack, "channels:read,channels:history,users:read"),
    ] {
        let entity = setting.api().entity().await;
        let (_, made) = setting.connect(service, &entity).await;
        setting.vendor(service).issue("by-hand", Some(scopes));
        let (status, by_hand) = setting.give(service, "bearer_token", "by-hand").await;
        assert_eq!(
            (status, &by_hand["account"]),
            (201, &made["account"]),
            "{service}: {by_hand}"
        );
        let removed = setting.remove(&made).await;
        assert_eq!(removed["revoked"], true, "{service}: {removed}");
        assert_eq!(setting.vendor(service).revocations(), 1, "{service}");
        let path = format!("/integrations/{}/test", by_hand["id"].as_str().unwrap());
        let tested = setting.api().post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{service}: {tested}");
        let removed = setting.remove(&by_hand).await;
        assert_eq!(removed["reason"], "not_supported", "{service}: {removed}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_the_service_does_not_end_is_told_of() {
    let setting = Setting::start().await;
    let service = ServiceName::Slack;
    let entity = setting.api().entity().await;
    for (expires, revoked, reason) in [
        (false, true, Value::Null),
        (true, false, json!("access_token_only")),
    ] {
        setting.vendor(service).set_mood(Mood {
            expires,
            ..Mood::default()
        });
        let (_, made) = setting.connect(service, &entity).await;
        let removed = setting.remove(&made).await;
        assert_eq!(
            (&removed["revoked"], &removed["reason"]),
            (&json!(revoked), &reason)
        );
    }
    assert_eq!(setting.vendor(service).revocations(), 2);
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_vendor_revokes_the_one_grant_that_was_removed() {
    let setting = Setting::start().await;
    let (mine, others) = (setting.api().entity().await, setting.api().entity().await);
    for vendor in &setting.vendors {
        let service = vendor.service;
        let (_, made) = setting.connect(service, &mine).await;
        vendor.set_mood(Mood {
            account: 1,
            ..Mood::default()
        });
        let (_, other) = setting.connect(service, &others).await;
        let removed = setting.remove(&made).await;
        let is_offered = service != ServiceName::Spotify;
        assert_eq!(removed["revoked"], is_offered, "{service}: {removed}");
        assert_eq!(vendor.revocations(), usize::from(is_offered), "{service}");
        let path = format!("/integrations/{}/test", other["id"].as_str().unwrap());
        let tested = setting.api().post(&path, json!({})).await;
        assert_eq!(tested["is_valid"], true, "{service}: {tested}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_given_back_unless_somebody_may_live_on_it() {
    let setting = Setting::start().await;
    let service = ServiceName::Github;
    let vendor = setting.vendor(service);
    let (mine, others) = (setting.api().entity().await, setting.api().entity().await);
    let unreadable = Mood {
        who_answer: Some((403, json!({"message": "Forbidden"}))),
        ..Mood::default()
    };
    let incomplete = Mood {
        unticked: &["repo"],
        ..Mood::default()
    };
    vendor.set_mood(unreadable.clone());
    let (status, problem) = setting.connect(service, &mine).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["code"], "account_unreadable");
    assert_eq!(vendor.revocations(), 1, "{problem}");
    vendor.set_mood(Mood::default());
    let (_, made) = setting.connect(service, &mine).await;
    // Of the same account, and of one that nobody knows.
    for mood in [incomplete.clone(), unreadable] {
        vendor.set_mood(mood);
        let (status, problem) = setting.connect(service, &others).await;
        assert_eq!(status, 409, "{problem}");
        assert_eq!(vendor.revocations(), 1, "{problem}");
    }
    vendor.set_mood(Mood {
        account: 1,
        ..incomplete
    });
    let (_, problem) = setting.connect(service, &others).await;
    assert_eq!(vendor.revocations(), 2, "{problem}");
    vendor.set_mood(Mood::default());
    let path = format!("/integrations/{}/test", made["id"].as_str().unwrap());
    let tested = setting.api().post(&path, json!({})).await;
    assert_eq!(tested["is_valid"], true, "{tested}");
    setting.assert_nothing_wrong();
}
