//! Tokens that end are refreshed in each vendor's way, and a grant that is void ends as that vendor means it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_vendors_tokens_are_refreshed_again_and_again() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for vendor in &setting.vendors {
        vendor.set_mood(Mood {
            expires: true,
            ..Mood::default()
        });
        let service = vendor.service;
        let (status, made) = setting.connect(service, &entity).await;
        assert_eq!(status, 201, "{service}: {made}");
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        // A rotated token that was not kept would be missed the second time.
        for refreshes in 1..=3 {
            vendor.expire_access_tokens();
            let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
            assert_eq!(tested["is_valid"], true, "{service}: {tested}");
            assert_eq!(vendor.calls().1, refreshes, "{service}");
        }
        // A refresh says how long the consent lasts, or nothing of it.
        let shown = setting.api().get(&path).await;
        let days = match service {
            ServiceName::Gmail | ServiceName::GoogleCalendar | ServiceName::GoogleDrive => Some(7),
            ServiceName::Github => Some(184),
            ServiceName::Linkedin => Some(359),
            ServiceName::Spotify => Some(181),
            _ => None,
        };
        assert_eq!(days_until(&shown["consent_expires_at"]), days, "{service}");
        vendor.withdraw();
        let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], false, "{service}: {tested}");
        let shown = setting.api().get(&path).await;
        assert_eq!(shown["status"], "revoked", "{service}: {shown}");
        // Once the person has consented again it is active by itself.
        let (status, again) = setting.connect(service, &entity).await;
        assert_eq!((status, &again["id"]), (200, &made["id"]), "{service}");
        assert_eq!(again["status"], "active", "{service}");
        assert_eq!(again["sync_error_message"], Value::Null, "{service}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_token_endpoint_ends_nothing() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    let rate_limited = json!({"object": "error", "code": "rate_limited"});
    let cases = [
        (ServiceName::Github, 502, json!({})),
        (
            ServiceName::Slack,
            200,
            json!({"ok": false, "error": "ratelimited"}),
        ),
        (ServiceName::Notion, 429, rate_limited),
        (ServiceName::Spotify, 503, json!({"error": "invalid_grant"})),
        (
            ServiceName::Twitter,
            400,
            json!({"title": "a page of a proxy"}),
        ),
    ];
    for (service, status, body) in cases {
        let vendor = setting.vendor(service);
        let mood = Mood {
            expires: true,
            ..Mood::default()
        };
        vendor.set_mood(mood.clone());
        let (_, made) = setting.connect(service, &entity).await;
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        vendor.expire_access_tokens();
        vendor.set_mood(Mood {
            token_answer: Some((status, body)),
            ..mood
        });
        let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], false, "{service}: {tested}");
        let shown = setting.api().get(&path).await;
        assert_eq!(shown["status"], "active", "{service}: {shown}");
        let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
        assert_eq!(tested["is_valid"], true, "{service}: {tested}");
    }
    setting.assert_nothing_wrong();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_whose_answer_was_lost_is_told_as_that_where_tokens_rotate() {
    let setting = Setting::start().await;
    let entity = setting.api().entity().await;
    for vendor in setting.vendors.iter().filter(|vendor| vendor.rotates()) {
        let service = vendor.service;
        vendor.set_mood(Mood {
            expires: true,
            lost: true,
            ..Mood::default()
        });
        let (_, made) = setting.connect(service, &entity).await;
        let path = format!("/integrations/{}", made["id"].as_str().unwrap());
        vendor.expire_access_tokens();
        for status in ["active", "expired"] {
            let tested = setting.api().post(&format!("{path}/test"), json!({})).await;
            assert_eq!(tested["is_valid"], false, "{service}: {tested}");
            let shown = setting.api().get(&path).await;
            assert_eq!(shown["status"], status, "{service}: {shown}");
        }
        let shown = setting.api().get(&path).await;
        let message = shown["sync_error_message"].as_str().unwrap();
        assert!(message.contains("broken off"), "{service}: {message}");
        assert_eq!(vendor.calls().1, 2, "{service}");
    }
    setting.assert_nothing_wrong();
}
